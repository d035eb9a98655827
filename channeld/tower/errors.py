"""What goes wrong between an owner and its watchtower. Whose fault it is is said from the side of whoever reads it.

ChanneldError
 '-- TowerError 3400
      |-- refusals, by the tower
      |    |-- NotAdmittedError 3401          |-- OverQuotaError 3405
      |    |-- MalformedTowerRequestError 3402|-- TooManyRequestsError 3406
      |    |-- RequestSignatureError 3403     |-- ForeignChannelError 3407
      |    |-- RepeatedRequestError 3404      |-- BadStateSignaturesError 3408
      |    |-- ConflictingStateError 3409     |-- NotWatchedError 3410
      |    '-- TowerUnableError 3411
      '-- what an owner finds
           |-- TowerUnreachableError 3420     |-- TowerBrokeItsWordError 3423
           |-- TowerAnswerError 3421          '-- TowerBlindError 3424
           '-- BadReceiptError 3422
"""

from __future__ import annotations

from channeld.core.errors import ChanneldError, Fault, SetupError


class TowerError(ChanneldError):
    """Something between an owner and its watchtower."""

    code = 3400
    fault = Fault.PEER


class NotAdmittedError(TowerError):
    """The tower does not serve this owner."""

    code = 3401
    fault = Fault.USER
    advice = "Ask the tower's operator to add the desk's address to its owners."


class MalformedTowerRequestError(TowerError):
    """The request does not have the form that docs/tower.md describes."""

    code = 3402
    advice = "Owner and tower must speak the same version; docs/tower.md has the form of every request."


class RequestSignatureError(TowerError):
    """The request is not signed by the owner it names."""

    code = 3403
    advice = "Sign the digest of the exact body with the owner's key."


class RepeatedRequestError(TowerError):
    """The request's number is not above the last one of the same owner: a replay, or two clients with one key."""

    code = 3404
    advice = "Let one client speak for an owner; numbers must rise."


class OverQuotaError(TowerError):
    """The owner has as many channels at the tower as it may, or the tower is full."""

    code = 3405
    fault = Fault.USER
    advice = "Ask the tower's operator for a larger quota; channels that have ended on chain do not count."


class TooManyRequestsError(TowerError):
    """More requests than the tower serves to one sender in that time."""

    code = 3406
    advice = "Wait a little; states that queue up meanwhile are sent as one, the newest."


class ForeignChannelError(TowerError):
    """The channel is not of the tower's contract and chain, or the owner is no party of it."""

    code = 3407
    fault = Fault.USER
    advice = "Use a tower of the channel's own chain and Adjudicator."


class BadStateSignaturesError(TowerError):
    """A state that both parties have not signed: it refutes nothing."""

    code = 3408


class ConflictingStateError(TowerError):
    """Two states of one version, both signed by both parties. The tower keeps the first."""

    code = 3409
    advice = "Both keys have signed two bodies for one version: find out whose software did, before trading on."


class NotWatchedError(TowerError):
    """The tower does not watch this channel."""

    code = 3410
    advice = "Register the channel's terms first; the daemon does so by itself."


class TowerUnableError(TowerError):
    """The tower cannot keep anything now: its store has failed, or it has not seen the chain yet."""

    code = 3411
    advice = "Ask its operator; use another tower meanwhile, and do not rely on this one."


class TowerUnreachableError(TowerError):
    """The tower does not answer."""

    code = 3420
    advice = "Check the URL and the network; a second tower covers for the first."


class TowerAnswerError(TowerError):
    """What answers does not speak as a tower of this version."""

    code = 3421
    advice = "Check the URL, and that the tower runs the same version."


class BadReceiptError(TowerError):
    """A receipt that is not by the tower's key, or of something else than was asked."""

    code = 3422
    advice = "Check the tower's address in the configuration. If it is right, do not rely on this tower."


class TowerBrokeItsWordError(TowerError):
    """The tower shows less than it has given a receipt for: it has lost or withheld a state."""

    code = 3423
    advice = "Do not rely on this tower. Both receipts are kept, signed by its key: they are the evidence."


class TowerBlindError(TowerError):
    """The tower's view of the chain is old: it could not see a challenge."""

    code = 3424
    advice = "Ask its operator; until it sees the chain again, stay online yourself."


class TowerAddressError(SetupError):
    """A watchtower's name is not ADDRESS@URL."""

    code = 3430
    advice = "Write it as the tower prints it at its start: 0x...@http://host:9900."


class OwnersFileError(SetupError):
    """The list of owners of a watchtower cannot be used."""

    code = 3431
    advice = "One owner a line: its address, and how many channels it may have."


class OtherTowerContractsError(SetupError):
    """The tower's records are of another contract or chain than its deployment.json names."""

    code = 3432
    advice = "Put the deployment.json of the channels back; another deployment needs a data directory of its own."
