# pragma version 0.4.3
# pragma nonreentrancy off
"""
@title OddToken
@license Apache-2.0
@notice A token that misbehaves as its mode says: what the Adjudicator must bear. For tests only.
"""

# as a token should
PLAIN: constant(uint256) = 0
# transfers answer nothing at all
SILENT: constant(uint256) = 1
# transfers move nothing and answer false
REFUSES: constant(uint256) = 2
# transfers move, and answer false all the same
DENIES: constant(uint256) = 3
# a hundredth of every transfer is burnt
FEE: constant(uint256) = 4
# transfers call `target` with `data` first
CALLS_BACK: constant(uint256) = 5
# transfers to `target` revert
BLOCKS: constant(uint256) = 6
# transfers to `target` revert with a heap of data
BOMBS: constant(uint256) = 7
# transfers to `target` burn all the gas they get
BURNS_GAS: constant(uint256) = 8
# transfers move and answer a heap of data
ANSWERS_HEAP: constant(uint256) = 9
# transfers move and answer false; balances and decimals are told as the reason of a revert
SHOUTS: constant(uint256) = 10
# transfers answer false; balances are told from the first transfer on: that there are none
FORGETS: constant(uint256) = 11

name: public(String[16])
places: uint8
balances: HashMap[address, uint256]
allowance: public(HashMap[address, HashMap[address, uint256]])

mode: public(uint256)
target: public(address)
data: Bytes[4096]
# what the last call back came to
called_back: public(bool)
forgotten: bool
call_succeeded: public(bool)


@deploy
def __init__(decimals: uint8, mode: uint256):
    """
    @notice Sets the decimals and the first mode.
    """
    self.name = "Odd"
    self.places = decimals
    self.mode = mode


@external
def set_mode(mode: uint256, target: address, data: Bytes[4096]):
    """
    @notice Misbehave in this way from now on.
    """
    self.mode = mode
    self.target = target
    self.data = data


@external
@view
def decimals() -> uint8:
    """
    @notice The decimals, if they are told.
    """
    if self.mode == SHOUTS:
        raw_revert(abi_encode(self.places))
    return self.places


@external
@view
def balanceOf(owner: address) -> uint256:
    """
    @notice The balance, if it is told.
    """
    if self.mode == SHOUTS:
        raw_revert(abi_encode(self.balances[owner]))
    if self.mode == FORGETS:
        assert self.forgotten
        return 0
    return self.balances[owner]


@external
def mint(to: address, amount: uint256):
    """
    @notice Makes tokens.
    """
    self.balances[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Lets a spender take up to an amount.
    """
    self.allowance[msg.sender][spender] = amount
    return True


@external
@raw_return
def transfer(to: address, amount: uint256) -> Bytes[4096]:
    """
    @notice Moves tokens of the caller, or not.
    """
    return self._move(msg.sender, to, amount)


@external
@raw_return
def transferFrom(owner: address, to: address, amount: uint256) -> Bytes[4096]:
    """
    @notice Moves tokens of the owner, or not.
    """
    self.allowance[owner][msg.sender] -= amount
    return self._move(owner, to, amount)


@internal
def _move(owner: address, to: address, amount: uint256) -> Bytes[4096]:
    mode: uint256 = self.mode
    if mode == FORGETS:
        self.forgotten = True
    if mode == REFUSES or mode == FORGETS:
        return abi_encode(False)
    if mode == CALLS_BACK:
        self.called_back = True
        self.call_succeeded = raw_call(self.target, self.data, revert_on_failure=False)
    if to == self.target:
        if mode == BLOCKS:
            raise "blocked"
        if mode == BOMBS:
            raw_revert(self._heap())
        if mode == BURNS_GAS:
            junk: bytes32 = empty(bytes32)
            for i: uint256 in range(1000000):
                junk = keccak256(junk)
    arrives: uint256 = amount
    if mode == FEE:
        arrives -= amount // 100
    self.balances[owner] -= amount
    self.balances[to] += arrives
    if mode == SILENT:
        return b""
    if mode == DENIES or mode == SHOUTS:
        return abi_encode(False)
    if mode == ANSWERS_HEAP:
        return self._heap()
    return abi_encode(True)


@internal
@pure
def _heap() -> Bytes[4096]:
    return abi_encode(True, empty(uint256[127]))
