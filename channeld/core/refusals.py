"""What the transition refuses: one class, one code for every rule of docs/protocol.md section 8 that a batch can break.

Rules: messages name the rule and the figures, `details` hold the figures as data. A refusal has changed nothing.
"""

from __future__ import annotations

from channeld.core.errors import RuleError


class VersionError(RuleError):
    """A state's version does not rise, or is beyond 64 bits."""

    code = 2120


class BatchBeforeStateError(RuleError):
    """asOf * 1000 <= timeMs: a batch's time lies before the asOf of the state it is built on."""

    code = 2121
    advice = "The batch must carry the present time; compare both clocks."


class UnknownMarketError(RuleError):
    """A feed that is not among the markets of the terms."""

    code = 2122
    advice = "Trade and mark the feeds of the channel's terms only."


class ExpiredInstrumentError(RuleError):
    """A TRADE in an instrument whose expiry is not after the batch's time."""

    code = 2123
    advice = "The instrument has expired; it is settled by the next MARK."


class ExpiryNotOnTickError(RuleError):
    """An expiry that is no multiple of oracle.tick."""

    code = 2124


class RepeatedInstrumentError(RuleError):
    """A TRADE that names an instrument twice."""

    code = 2125
    advice = "Add the two legs together, or send two TRADEs."


class SizeBoundError(RuleError):
    """A position of 2**95 wads or more."""

    code = 2126


class BookLimitError(RuleError):
    """More than 64 positions, or more than 16 distinct (feed, expiry) pairs."""

    code = 2127
    advice = "Close positions first; the limits keep settlement on chain within a block."


class CollateralNotMarkedError(RuleError):
    """A TRADE into an empty book where the collateral has a feed and no MARK came at most maxAge before."""

    code = 2128
    advice = "Put a MARK before the TRADE, so that the collateral has a fresh price."


class NegativeBalanceError(RuleError):
    """A balance that is negative at the end of a batch."""

    code = 2129
    advice = "Deposit first, or make it smaller. After a MARK of all feeds: that party is in default, go to the chain."


class BalanceBoundError(RuleError):
    """A balance or total of 2**128 units or more."""

    code = 2130


class DepositFallsError(RuleError):
    """A DEPOSIT whose cumulative totals fall below those acknowledged."""

    code = 2131
    advice = "Deposits are cumulative totals and never fall."


class CloseWithPositionsError(RuleError):
    """A CLOSE while positions are open."""

    code = 2132
    advice = "Close out every position first."


class CloseNotLastError(RuleError):
    """An operation after CLOSE in one batch."""

    code = 2133


class MarkRepeatedError(RuleError):
    """A second MARK in one batch."""

    code = 2134


class MarkNotOnTickError(RuleError):
    """A MARK at a time that is no multiple of oracle.tick."""

    code = 2135


class MarkNotLaterError(RuleError):
    """A MARK before asOf, or at asOf without a change of vol or carry."""

    code = 2136


class MarkAheadError(RuleError):
    """asOf * 1000 <= timeMs: a MARK at a time after its batch's."""

    code = 2137


class CollateralPrintMissingError(RuleError):
    """A MARK that does not carry the collateral's feed, where the terms name one."""

    code = 2138
    advice = "Every MARK of such a channel sets collateralMark: add the collateral's feed and its packages."


class MarkShapeError(RuleError):
    """A MARK whose carries and vols do not number the positions on the feeds it carries, once what expired has gone."""

    code = 2139


class MarkDisagreementError(RuleError):
    """A MARK with two carries for one (feed, expiry), or two vols for one strike."""

    code = 2140


class UnusedPackageError(RuleError):
    """A MARK with a package that none of its prints and fixes uses."""

    code = 2141
    advice = "Send only packages of the feeds carried at the MARK's time, and of the samples of fixes that settle."


class FlaggedNotExpiredError(RuleError):
    """A flagged (feed, expiry) on which nothing expired is open."""

    code = 2142


class FlaggedTooEarlyError(RuleError):
    """A flagged settlement before expiry + grace."""

    code = 2143
    advice = "Until expiry + grace only the fix settles a position."


class FlaggedDespiteFixError(RuleError):
    """A flagged settlement although the MARK's own packages make the fix."""

    code = 2144


class PositionPastExpiryError(RuleError):
    """An open position whose expiry asOf has passed; no batch can make one, so the state before was not valid."""

    code = 2145
    advice = "Replay the channel's journal: the state this batch was built on is not one the rules can reach."
