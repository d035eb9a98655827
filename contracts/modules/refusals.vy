# pragma version 0.4.3
"""
@title Refusals
@license Apache-2.0
@notice Custom errors without arguments, raised by selector. Stateless.
@dev One function for all of them: half the code of a `raw_revert` at every place, which is what the Adjudicator, near the size
     limit of a contract, needs. Write `_refuse(convert(method_id("Name()", output_type=bytes4), uint256))`: the compiler folds
     the argument to four bytes, and contracts/compile.py finds the name for the ABI.
"""


@internal
@pure
def _refuse(selector: uint256):
    """
    @notice Reverts with four bytes.
    @param selector The error's selector, as a number.
    """
    raw_revert(slice(convert(selector << 224, bytes32), 0, 4))
