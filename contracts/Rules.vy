# pragma version 0.4.3
# pragma nonreentrancy off
"""
@title Rules
@license Apache-2.0
@notice What terms a channel may be opened with, what a book is closed out at, and who is below maintenance margin: the part of
        the Adjudicator that judges and holds nothing. Stateless, view alone: no owner, no storage, no immutables.
@dev Kept out of the Adjudicator by the 24,576 bytes a contract may have. It asks the RiskEngine and the FixBook that its caller
     names, so that whoever calls it trusts no more than before. Its twins are channeld/core/terms.py and settlement.py.
"""

from modules import close_out
from modules import terms_rules
from modules import typed_data


@external
@view
def check(terms: typed_data.Terms) -> bool:
    """
    @notice Refuses terms that could not be enforced, each by its own error.
    @dev More than 9 oracle signers or 8 markets do not decode.
    @param terms The terms.
    @return True, always.
    """
    terms_rules._check(terms)
    return True


@external
@view
def profit(
    engine: address, book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
) -> (int256, bool):
    """
    @notice a's profit since the marks at the fixes for t, in units, and whether every fix that this needs is complete.
    @dev A position that expired by t takes its own expiry's fix; one without its fix, and the collateral without its
         own, stays at its mark. Total: no body makes it revert.
    @param engine The RiskEngine.
    @param book The FixBook.
    @param terms The terms.
    @param body The body.
    @param t The time of the close-out, Unix seconds.
    @return The profit and the completeness.
    """
    found: close_out.Fixes = close_out._fixes(book, terms, body, t)
    return close_out._profit(engine, terms, body, found, t), found.complete


@external
@view
def judge(
    engine: address,
    book: address,
    terms: typed_data.Terms,
    body: typed_data.Body,
    t: uint64,
    known: uint256,
    deposits: uint256,
    paid: uint256,
) -> close_out.Verdict:
    """
    @notice A margin call's test: who is below maintenance margin at the fixes for t, and the penalty of one who is so alone.
    @dev Reverts with FixMissing where a fix that it needs is not proven, with NotHeavier where the fixes weigh no more than
         those of an earlier test, and where the RiskEngine refuses the book.
    @param engine The RiskEngine.
    @param book The FixBook.
    @param terms The terms.
    @param body The body on record.
    @param t The call's time L, Unix seconds.
    @param known The weight of the verdict on record; max_value where there is none.
    @param deposits Units deposited up to L, by a (low 128 bits) and by b.
    @param paid Units paid out, to a (low 128 bits) and to b.
    @return The verdict.
    """
    return close_out._judge(engine, book, terms, body, t, known, deposits, paid)


@external
@view
def fixes(
    book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
) -> DynArray[close_out.Fix, close_out.MAX_FIXES]:
    """
    @notice The fixes that a close-out of a body at t takes, each once, in the order of the book, the collateral's own last;
            with the price and the weight that are proven, zeros where none is.
    @param book The FixBook.
    @param terms The terms.
    @param body The body.
    @param t The time, Unix seconds.
    @return The fixes.
    """
    found: close_out.Fixes = close_out._fixes(book, terms, body, t)
    return found.list
