# pragma version 0.4.3
# pragma nonreentrancy off
"""
@title PermitToken
@license Apache-2.0
@notice An ERC-20 token with EIP-2612 permits, that anybody may mint. For tests only.
"""

PERMIT_TYPEHASH: constant(bytes32) = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
DOMAIN_TYPEHASH: constant(bytes32) = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")

decimals: public(uint8)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])


@deploy
def __init__(decimals: uint8):
    """
    @notice Sets the decimals.
    """
    self.decimals = decimals


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice The hashStruct of the EIP-712 domain.
    """
    return self._domain()


@external
def mint(to: address, amount: uint256):
    """
    @notice Makes tokens.
    """
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Lets a spender take up to an amount.
    """
    self.allowance[msg.sender][spender] = amount
    return True


@external
def permit(
    owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice An allowance by the owner's signature.
    """
    assert block.timestamp <= deadline, "permit expired"
    digest: bytes32 = keccak256(
        concat(
            x"1901",
            self._domain(),
            keccak256(
                abi_encode(PERMIT_TYPEHASH, owner, spender, amount, self.nonces[owner], deadline)
            ),
        )
    )
    assert ecrecover(digest, v, r, s) == owner, "permit invalid"
    self.nonces[owner] += 1
    self.allowance[owner][spender] = amount


@external
def transfer(to: address, amount: uint256) -> bool:
    """
    @notice Moves tokens of the caller.
    """
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    """
    @notice Moves tokens that the owner has approved to the caller.
    """
    assert self.allowance[owner][msg.sender] >= amount, "allowance too low"
    self.allowance[owner][msg.sender] -= amount
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
    return True


@internal
@view
def _domain() -> bytes32:
    return keccak256(
        abi_encode(DOMAIN_TYPEHASH, keccak256("Permit"), keccak256("1"), chain.id, self)
    )
