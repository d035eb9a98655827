"""A key that is a wallet's: what it signs is shown first, as typed data and in a sentence, and can be refused.

Rules: the signing rules are those of every key here (signer.py), and come first; a wallet is asked for nothing that
they refuse. What is shown is made of the very struct whose digest is wanted; what a wallet gives back is verified
against that digest before it is used. Who refuses a proposal rejects it, by a rejection that changes no balance; who
refuses anything else freezes the channel until the next start, and signs nothing more meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from channeld.core.channel import Accepted, Decide, Refused
from channeld.core.crypto import SignatureError, checksum_address, verify
from channeld.core.describe import operation_data
from channeld.core.eip712 import Close, Domain, Withdrawal, typed_data
from channeld.core.errors import ChanneldError, Fault, InputError, InternalError
from channeld.core.instruments import instrument_name
from channeld.core.operations import Batch, encode_batch
from channeld.core.wad import format_decimal
from channeld.core.wire import MAX_TEXT
from channeld.daemon.actor import Actor
from channeld.daemon.signer import SigningGuard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.channel import Channel, Half
    from channeld.core.records import Store
    from channeld.core.state import State


class WalletRefusedError(InputError):
    """The wallet, or its owner, does not sign this."""

    code = 1295
    advice = "Nothing was signed. Ask the desk for other terms, or agree to what is shown."


class WrongWalletError(ChanneldError):
    """What the wallet gave back is not its signature on what it was shown."""

    code = 1296
    fault = Fault.USER
    advice = "Check that the wallet signs EIP-712 typed data, with the key of this address, as 65 bytes r, s, v."


class Wallet(Protocol):
    """Anything that signs EIP-712. address: 20 bytes."""

    @property
    def address(self) -> bytes:
        """The signer of the terms."""
        ...

    async def sign_typed_data(self, data: dict[str, Any]) -> bytes:
        """65 bytes r, s, v on the typed data (eth_signTypedData_v4)."""
        ...


@dataclass(frozen=True)
class Shown:
    """What is about to be signed.

    kind: link, state, rejection, recovery, withdrawal or close. sentence: in plain words. typed_data: as the wallet
    gets it. operations: of a state, as docs/api.md's events tell them, from our side.
    """

    kind: str
    sentence: str
    typed_data: dict[str, Any]
    operations: tuple[dict[str, Any], ...] = ()


def holdings(state: State, side: int, decimals: int) -> str:
    """What a state leaves to a side, in words."""
    sign = -1 if side else 1
    body = state.body
    held = [f"{format_decimal(sign * p.size)} {instrument_name(p.instrument)}" for p in body.positions]
    book = ", ".join(held) if held else "no positions"
    return f"you have {format_decimal(body.account(side).balance, decimals)} in the channel, and hold {book}"


def operation_words(data: dict[str, Any]) -> str:
    """One operation in words, from our side."""
    who = "you" if data["by"] == "us" else "the desk"
    match data["operation"]:
        case "TRADE":
            legs = []
            for leg in data["legs"]:
                sold = leg["size"].startswith("-")
                legs.append(
                    f"{'sell' if sold else 'buy'} {leg['size'].lstrip('-')} {leg['instrument']} at {leg['price']}"
                )
            fee = data["fee_paid"]
            paid = "" if fee in {"0", "0.0"} else f", fee you pay {fee}"
            return "you " + " and ".join(legs) + paid
        case "TRANSFER":
            return f"{who} pay{'' if who == 'you' else 's'} {data['amount']}"
        case "WITHDRAW":
            return f"{who} withdraw{'' if who == 'you' else 's'} {data['amount']}"
        case "DEPOSIT":
            return f"deposits of {data['deposited_a']} by a and {data['deposited_b']} by b count"
        case "MARK":
            return f"the book is marked at {', '.join(data['feeds'])} of {data['time']}"
        case "CLOSE":
            return f"{who} want{'' if who == 'you' else 's'} to end the channel"
        case other:
            return f"{who}: {other}"


def shown_state(channel: Channel, half: Half) -> Shown:
    """A state that is to be signed, as it is shown."""
    decimals = channel.terms.decimals
    state = half.applied.state
    done = tuple(operation_data(one, channel.side, decimals) for one in half.applied.batch.operations)
    what = "; ".join(map(operation_words, done)) or "nothing changes, and what was proposed above it is void"
    sentence = f"Version {state.version}: {what}. Afterwards {holdings(state, channel.side, decimals)}."
    kind = "rejection" if half.voiding else "state" if half.leap_by is None else "recovery"
    return Shown(kind, sentence, typed_data(channel.domain, "State", state), done)


def shown_exit(domain: Domain, document: Withdrawal | Close, side: int, decimals: int) -> Shown:
    """A Withdrawal or Close that is to be signed, as it is shown."""
    if isinstance(document, Withdrawal):
        total = document.withdrawn_b if side else document.withdrawn_a
        theirs = document.withdrawn_a if side else document.withdrawn_b
        sentence = (
            f"The contract may pay out, in all so far, {format_decimal(total, decimals)} to your payout address and "
            f"{format_decimal(theirs, decimals)} to the desk's (version {document.version})."
        )
        return Shown("withdrawal", sentence, typed_data(domain, "Withdrawal", document))
    mine = document.b if side else document.a
    sentence = (
        f"The channel ends: {format_decimal(mine.balance, decimals)} are paid to your payout address, if it reaches "
        f"the chain by {document.valid_until} (version {document.version})."
    )
    return Shown("close", sentence, typed_data(domain, "Close", document))


class WalletSigner(SigningGuard):
    """Signs with a wallet, behind the same guard as every other key."""

    def __init__(self, wallet: Wallet, store: Store, approve: Callable[[Shown], Awaitable[bool]]) -> None:
        """approve: shown everything before the wallet gets it; False refuses."""
        super().__init__(wallet.address, store)
        self._wallet, self._approve = wallet, approve
        self._approved: set[bytes] = set()
        self.channels: dict[bytes, Callable[[], Channel]] = {}
        """The channels as they stand in work, by id."""

    async def agrees(self, channel: Channel, half: Half) -> None:
        """Show a state before it is judged final; raises where it is refused.

        Raises:
            WalletRefusedError: refused.
        """
        await self._show(shown_state(channel, half))
        self._approved.add(half.digest)

    async def _show(self, shown: Shown) -> None:
        if not await self._approve(shown):
            raise WalletRefusedError(f"the wallet refuses: {shown.sentence}")

    def sign_now(self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False) -> None:
        """Never: a wallet takes its time."""
        del channel, kind, version, digest, leap

    async def sign(self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False) -> bytes:
        """A signature (65 bytes) of the wallet. See `GuardedSigner.sign`.

        Raises:
            WalletRefusedError, WrongWalletError: nothing was signed that counts.
            DoubleSignError, TooFarAboveError: by the signing rules; the wallet was not asked.
        """
        known = await self.permitted(channel, kind, version, digest, leap=leap)
        if known is not None:
            return known
        shown = self._shown(self.channels[channel](), digest)
        if digest in self._approved:
            self._approved.discard(digest)
        else:
            await self._show(shown)
        return self.remember(channel, kind, version, digest, await self._signature(shown.typed_data, digest))

    async def _signature(self, data: dict[str, Any], digest: bytes) -> bytes:
        try:
            signature = await self._wallet.sign_typed_data(data)
        except ChanneldError:
            raise
        except Exception as error:
            raise WalletRefusedError(f"the wallet gives no signature: {error or type(error).__name__}") from error
        try:
            verify(digest, signature, self.address)
        except (SignatureError, TypeError) as error:
            name = checksum_address(self.address)
            raise WrongWalletError(f"the wallet's answer is no signature of {name} on this: {error}") from error
        return signature

    async def sign_link(self, data: dict[str, Any]) -> bytes:
        """The wallet's signature that proves us on a link; shown like everything else."""
        await self._show(
            Shown("link", "Connect to the desk as this wallet; moves nothing and agrees to nothing.", data)
        )
        return await self._wallet.sign_typed_data(data)

    def _shown(self, channel: Channel, digest: bytes) -> Shown:
        """What has this digest, among all that the machine may want signed now."""
        halves = (
            *(channel.draft, *channel.proposals),
            *(channel.rejection, channel.recovery, channel.offered, channel.asked),
        )
        for half in halves:
            if half is not None and half.digest == digest:
                return shown_state(channel, half)
        for one in channel.exits:
            if one.digest == digest:
                return shown_exit(channel.domain, one.document, channel.side, channel.terms.decimals)
        raise InternalError("asked to sign what cannot be shown")


@dataclass
class WalletActor(Actor):
    """A channel whose key is a wallet's: the follower's, since whoever orders must answer at once."""

    async def _judge(self, ask: Decide) -> Accepted | Refused:
        """Our own checks first; then the owner of the wallet."""
        answer = await super()._judge(ask)
        signer = self.services.signer
        if not isinstance(answer, Accepted) or ask.half is None or not isinstance(signer, WalletSigner):
            return answer
        try:
            await signer.agrees(self.effects.working, ask.half)
        except WalletRefusedError as error:
            now = self.services.clock.now_ms()
            empty = encode_batch(Batch(max(now, self.last_time_ms), self.services.salt(), ()))
            return Refused(ask.version, empty, error.code, str(error)[:MAX_TEXT])
        return answer
