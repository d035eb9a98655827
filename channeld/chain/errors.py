"""Errors of the chain room, codes 5001-5199 (the keystore's, 7100-7199, stand in keystore.py).

ChainError 5000
 |-- ChainUnreachableError        5001  no answer from the endpoint, after retries
 |-- WrongChainIdError            5002  the endpoint serves another chain
 |-- RpcError                     5003  the endpoint answered with an error
 |    |-- RevertError             5004  a call or an estimate reverted; `reason` is decoded
 |    '-- TransactionRefusedError 5005  the endpoint would not take a transaction
 |-- MalformedResponseError       5006  the endpoint answered nonsense
 |-- TransactionRevertedError     5007  a transaction was mined and reverted
 |-- TransactionNotMinedError     5008  no receipt in time, replacements included
 |-- InsufficientFundsError       5009  the sender cannot pay for gas
 |-- NotDeployedError             5020  no code at an address
 |-- CodeMismatchError            5021  the code at an address is not ours
 |-- DeploymentFileError          5022  deployment.json is missing, malformed or of another chain
 |-- ArtifactError                5023  a compiled contract is missing or malformed
 |-- CollateralMismatchError      5024  the collateral token is not what the terms say
 |-- UnknownLogError              5025  a log that the ABI does not know
 |-- NoTimeControlError           5040  a chain whose time cannot be set
 |-- ChainStartError              5041  the embedded chain or anvil did not start
 |-- ClockStoppedError            5042  a devnet clock was read before it was started
 |-- TimeReversalError            5043  the devnet clock only moves forward
 '-- CursorError                  5050  a watcher's stored cursor is malformed
"""

from __future__ import annotations

from typing import Any

from channeld.core.errors import ChainError


class ChainUnreachableError(ChainError):
    """The endpoint did not answer, after retries."""

    code = 5001
    advice = "Check that the node runs and that the URL is right; nothing was sent."


class WrongChainIdError(ChainError):
    """The endpoint serves another chain than the one configured."""

    code = 5002
    advice = "Correct the chain URL or the chain id in the configuration; both must name the same chain."


class RpcError(ChainError):
    """The endpoint answered with a JSON-RPC error."""

    code = 5003
    advice = "See the node's own message and log."

    def __init__(self, message: str, *, rpc_code: int = 0, data: Any = None, **details: Any) -> None:  # noqa: ANN401 - JSON
        """Hold the node's code and data beside the message."""
        super().__init__(message, rpc_code=rpc_code, **details)
        self.rpc_code = rpc_code
        self.data = data


class RevertError(RpcError):
    """A call or a gas estimate reverted. `reason` is the contract's decoded reason; `data` its raw return."""

    code = 5004
    advice = "The contract refuses this now; the reason says why."

    def __init__(self, message: str, *, reason: str, data: bytes = b"", rpc_code: int = 3) -> None:
        """Hold the decoded reason and the raw revert data."""
        super().__init__(message, rpc_code=rpc_code, data=data, reason=reason)
        self.reason = reason


class TransactionRefusedError(RpcError):
    """The endpoint would not take a transaction (nonce, fee, size)."""

    code = 5005
    advice = "Nothing was sent; the next attempt reads nonce and fees anew."


class MalformedResponseError(ChainError):
    """The endpoint's answer is not what JSON-RPC or Ethereum's API says."""

    code = 5006
    advice = "Check that the URL is that of an Ethereum JSON-RPC endpoint."


class TransactionRevertedError(ChainError):
    """A transaction was mined and reverted: gas was spent, nothing else changed."""

    code = 5007
    advice = "The contract refused it when it was mined; the reason says why."


class TransactionNotMinedError(ChainError):
    """No receipt in time, replacements included. The transaction may still be mined."""

    code = 5008
    advice = "Look the hash up before sending anything again; raise the fee cap where the chain is congested."


class InsufficientFundsError(ChainError):
    """The sender cannot pay for the gas, or the value."""

    code = 5009
    advice = "Send native currency to the address named; on a devnet use the faucet."


class NotDeployedError(ChainError):
    """There is no code at an address where a contract should be."""

    code = 5020
    advice = "Check the address and the chain; `channeld deploy` deploys the contracts."


class CodeMismatchError(ChainError):
    """The code at an address is not that of this release's contracts."""

    code = 5021
    advice = "Do not deposit. Use the deployment of this release, or the release of that deployment."


class DeploymentFileError(ChainError):
    """deployment.json is missing, malformed, or of another chain."""

    code = 5022
    advice = "Run `channeld deploy`, or copy the deployment.json that your peer uses."


class ArtifactError(ChainError):
    """A compiled contract is missing from the package, or malformed."""

    code = 5023
    advice = "Run `make contracts`, or reinstall the package."


class CollateralMismatchError(ChainError):
    """The collateral is no token, or its decimals are not those of the terms."""

    code = 5024
    advice = "Correct collateral or decimals in the terms; both desks must use the same terms."


class UnknownLogError(ChainError):
    """A log that the contract's ABI does not know."""

    code = 5025
    advice = "The contract at this address is not of this release."


class NoTimeControlError(ChainError):
    """A chain whose time cannot be set, where time must be."""

    code = 5040
    advice = (
        "Use --chain embedded, --chain anvil, or the URL of a development node that knows evm_setNextBlockTimestamp."
    )


class ChainStartError(ChainError):
    """The embedded chain or anvil did not start."""

    code = 5041
    advice = "Install what is missing: `pip install channeld[devnet]`, or anvil (npm: @foundry-rs/anvil)."


class ClockStoppedError(ChainError):
    """A devnet clock was read before it was started."""

    code = 5042
    advice = "Await DevnetClock.start() first."


class TimeReversalError(ChainError):
    """The devnet clock only moves forward."""

    code = 5043
    advice = "Name a time that is not before the devnet's own; channeld_clock shows it."


class CursorError(ChainError):
    """A watcher's stored cursor is malformed."""

    code = 5050
    advice = "Restore the database, or start watching from the deployment's block again."
