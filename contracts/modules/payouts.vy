# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Payouts that cannot revert
@license Apache-2.0
@notice Pushes tokens to a payee, and holds for `claim` what a token refuses to move. Its state is what is held.
"""

from modules import refusals


event Held:
    token: indexed(address)
    payee: indexed(address)
    amount: uint256


event Claimed:
    token: indexed(address)
    payee: indexed(address)
    to: indexed(address)
    amount: uint256


# What a token may burn in a payout. A payout starts only with gas for the whole of it (63/64 of what is left reaches a
# call), so that no caller can make a transfer fail, or its outcome unreadable, by sending too little.
TRANSFER_GAS: constant(uint256) = 300_000
BALANCE_GAS: constant(uint256) = 100_000
PAYOUT_GAS: constant(uint256) = 550_000

# token -> payee -> what could not be pushed
_held: HashMap[address, HashMap[address, uint256]]


@external
def claim(token: address, to: address):
    """
    @notice Sends what could not be pushed to the caller earlier; reverts while the token still refuses.
    @param token The token.
    @param to Where to.
    """
    amount: uint256 = self._held[token][msg.sender]
    if amount == 0:
        refusals._refuse(convert(method_id("NothingHeld()", output_type=bytes4), uint256))
    self._held[token][msg.sender] = 0
    if not self._transfer(token, to, amount):
        refusals._refuse(convert(method_id("TransferFailed()", output_type=bytes4), uint256))
    log Claimed(token=token, payee=msg.sender, to=to, amount=amount)


@external
@view
def held(token: address, payee: address) -> uint256:
    """
    @notice Units of a token that a payee can claim.
    @param token The token.
    @param payee The payee.
    @return Units.
    """
    return self._held[token][payee]


@internal
def _push(token: address, payee: address, amount: uint256):
    """
    @notice Sends tokens to a payee; holds them where the token refuses. Never reverts but for too little gas.
    """
    if not self._transfer(token, payee, amount):
        self._held[token][payee] += amount
        log Held(token=token, payee=payee, amount=amount)


@internal
def _transfer(token: address, to: address, amount: uint256) -> bool:
    """
    @notice Sends tokens and says whether they went.
    @dev Returned data is cut at 32 bytes and gas is bounded: neither a return bomb nor a loop reaches beyond here.
         A token that answers nothing, or true, has paid. One that answers anything else has paid only if the balance
         fell: there are tokens that move and say false, and holding that too would take it from other channels.
    """
    if msg.gas < PAYOUT_GAS:
        refusals._refuse(convert(method_id("TooLittleGas()", output_type=bytes4), uint256))
    before: uint256 = self._balance(token)
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        abi_encode(to, amount, method_id=method_id("transfer(address,uint256)")),
        max_outsize=32,
        gas=TRANSFER_GAS,
        revert_on_failure=False,
    )
    if not success or not token.is_contract:
        return False
    if len(answer) == 0 or (len(answer) == 32 and convert(answer, uint256) == 1):
        return True
    return self._balance(token) < before


@internal
@view
def _balance(token: address) -> uint256:
    """
    @notice This contract's balance of a token; zero where the token does not say.
    """
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        abi_encode(self, method_id=method_id("balanceOf(address)")),
        max_outsize=32,
        gas=BALANCE_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success or len(answer) != 32:
        return 0
    return convert(answer, uint256)
