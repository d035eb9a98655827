"""The API's methods about channels: terms, money in and out, and disputes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.chain.contracts import Phase
from channeld.chain.deployment import check_collateral
from channeld.core import records
from channeld.core.bundle import bundle_to_json
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import Domain, channel_id
from channeld.core.errors import ChanneldError, InputError
from channeld.core.files import terms_from_json, terms_to_json
from channeld.core.operations import CloseChannel, Transfer, Withdraw
from channeld.core.settlement import fix_time, settle_amounts
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal
from channeld.daemon import views
from channeld.daemon.bundles import actor_bundle
from channeld.daemon.limit_settings import limits_of
from channeld.daemon.parameters import BadParameterError, Json, Params, note, take
from channeld.daemon.proposals import NotOurTermsError
from channeld.daemon.requests import MAX_NOTE, Requests
from channeld.desk.limits import check_terms, in_words

if TYPE_CHECKING:
    from channeld.core.terms import Terms
    from channeld.daemon.actor import Actor


class UnknownProposalError(InputError):
    """There is no proposal of terms with this hash waiting for us."""

    code = 1205
    advice = "`channeld channel proposals` lists them; both desks must use the same terms, salt included."


class ChannelMethods(Requests):
    """Opening, funding, closing, disputing."""

    def _check_terms(self, terms: Terms, peer: bytes) -> None:
        """Terms must name this desk and that peer, with our own payout address."""
        ours = self.node.signer.address
        if {terms.a.signer, terms.b.signer} != {ours, peer}:
            raise NotOurTermsError("the terms' signers must be this desk's address and the peer's")
        mine = terms.a if terms.a.signer == ours else terms.b
        if mine.payout != self.node.config.payout_address:
            raise NotOurTermsError(
                f"the terms pay us to {checksum_address(mine.payout)}; our payout address is "
                f"{checksum_address(self.node.config.payout_address)}"
            )

    async def channel_propose(self, params: Params) -> Json:
        """Propose terms to a peer, who accepts them by their hash."""
        peer = self._peer(params)
        terms = terms_from_json(take(params, "terms", dict))
        self._check_terms(terms, peer)
        check_terms(limits_of(self.node.config.limits), terms)
        await self.node.chain.contracts()  # before anything is asked of the chain: there must be contracts
        await check_collateral(self.node.rpc, terms)
        channel = await self.node.proposals.propose(peer, terms)
        return {"hash": "0x" + channel.hex(), "summary": summary(terms, self.node.signer.address)}

    async def channel_proposals(self, _: Params) -> Json:
        """Proposals of terms, ours and the peers'."""
        rows = []
        for channel, proposal in self.node.proposals.known.items():
            terms = records.decode_terms(bytes.fromhex(proposal["terms"]))
            rows.append(
                {
                    "hash": "0x" + channel.hex(),
                    "peer": self.node.name(bytes.fromhex(proposal["peer"])),
                    "direction": proposal["direction"],
                    "status": proposal["status"],
                    "terms": terms_to_json(terms),
                    "summary": summary(terms, self.node.signer.address),
                }
            )
        return rows

    async def channel_accept(self, params: Params) -> Json:
        """Accept a peer's terms by their hash."""
        text = take(params, "hash", str)
        channel = next((c for c in self.node.proposals.known if ("0x" + c.hex()) == text.lower()), None)
        if channel is None or self.node.proposals.known[channel]["direction"] != "in":
            raise UnknownProposalError(f"no proposal of a peer has the hash {text}")
        if channel not in self.node.actors:
            proposal = self.node.proposals.known[channel]
            terms = records.decode_terms(bytes.fromhex(proposal["terms"]))
            self._check_terms(terms, bytes.fromhex(proposal["peer"]))
            check_terms(limits_of(self.node.config.limits), terms)
            deployment = await self.node.chain.contracts()
            domain = Domain(proposal["chain_id"], bytes.fromhex(proposal["adjudicator"]))
            if domain != deployment.domain or channel_id(domain, terms) != channel:
                raise NotOurTermsError(
                    f"the peer's contracts are at {checksum_address(domain.adjudicator)} on chain {domain.chain_id}; "
                    f"ours are at {checksum_address(deployment.adjudicator)} on chain {deployment.chain_id}"
                )
            await check_collateral(self.node.rpc, terms)
            await self.node.proposals.begin(channel, opener=False)
        return {"channel": "0x" + channel.hex()}

    async def channels(self, _: Params) -> Json:
        """All channels, a line each."""
        return [await self._row(actor) for actor in self.node.actors.values()]

    async def _row(self, actor: Actor) -> dict[str, Json]:
        row = views.channel_row(actor, self.node.chain, self.node.name(actor.peer))
        try:
            pair = self._reports(actor, await self._prices(actor))
            row["free_equity"] = format_decimal(pair[actor.channel.side].free, places=2)
        except ChanneldError:
            row["free_equity"] = None
        now_ms = self.node.clock.now_ms()
        await self.node.offline.measure(actor, now_ms, at_once=True)
        row["safe_offline_until_ms"] = self.node.offline.until(actor, now_ms) * 1000
        row["tower"] = self.node.towers.refuting(actor)
        return row

    async def channel(self, params: Params) -> Json:
        """Everything about one channel."""
        actor = self._actor(params)
        paid = await self.node.chain.paid(actor.id)
        decimals = actor.channel.terms.decimals
        return {
            **views.channel_data(actor, self.node.chain, self.node.name(actor.peer)),
            "paid": None if paid is None else {s: format_decimal(u, decimals) for s, u in zip("ab", paid, strict=True)},
            **await self._row(actor),
        }

    # ------------------------------------------------------------------------------------------------- money

    async def deposit(self, params: Params) -> Json:
        """Deposit collateral from the desk's own account."""
        actor = self._actor(params)
        transaction, mined = await self.node.chain.deposit(actor, self._amount(params, actor))
        status = "mined; it counts once it is final" if mined else "sent; it counts once it is mined and final"
        return {"tx": "0x" + transaction.hex(), "status": status}

    async def withdraw(self, params: Params) -> Json:
        """Withdraw free collateral to our payout address, with the peer's signature."""
        actor = self._actor(params)
        version = await self._operate(actor, Withdraw(actor.channel.side, self._amount(params, actor)))
        return {"version": version, "status": "signed; it is paid out once both signatures are on chain"}

    async def close(self, params: Params) -> Json:
        """Close cooperatively; the book must be empty."""
        actor = self._actor(params)
        if actor.channel.closing is None:
            version = await self._operate(actor, CloseChannel(actor.channel.side))
        else:
            version = actor.state.version
        return {"version": version, "status": "closing"}

    async def transfer(self, params: Params) -> Json:
        """Pay the peer."""
        actor = self._actor(params)
        memo = note(take(params, "memo", str, ""), "memo", MAX_NOTE)
        version = await self._operate(actor, Transfer(actor.channel.side, self._amount(params, actor), memo))
        return {"version": version}

    # ------------------------------------------------------------------------------------------------- disputes

    async def challenge(self, params: Params) -> Json:
        """Start a dispute with the newest co-signed state; on a devnet also with an old one, to show what follows."""
        actor = self._actor(params)
        version = take(params, "version", int, None)
        if version is not None and self.node.config.chain.clock != "devnet":
            raise BadParameterError("an old version can be shown on a devnet alone: it is what a cheater does")
        transaction = await self.node.chain.disputes.challenge(actor, version)
        return {"tx": "0x" + transaction.hex(), "status": "a dispute runs"}

    async def bundle(self, params: Params) -> Json:
        """All that `channeld dispute` needs to act for us without this daemon."""
        return bundle_to_json(await actor_bundle(self._actor(params), self.node.clock.now_ms()))

    async def dispute(self, params: Params) -> Json:
        """Where a dispute stands, and what settle would pay."""
        actor = self._actor(params)
        chain = self.node.chain
        known = chain.known.get(actor.id)
        if known is None or known.record is None or known.dispute is None or known.dispute.number == 0:
            return {"phase": known.phase.name.lower() if known else "none", "next_step": "none: there is no dispute"}
        record, number = known.record, known.dispute
        terms, decimals = actor.channel.terms, actor.channel.terms.decimals
        at = fix_time(terms, number.deadline)
        told: dict[str, Json] = {
            "phase": known.phase.name.lower(),
            "dispute": number.number,
            "deadline": number.deadline,
            "fix_time": at,
            "on_record": number.version,
            "ours": actor.state.version,
        }
        if known.phase is not Phase.DISPUTED:
            return {**told, "next_step": "none: the channel has ended"}
        step, body = await chain.disputes.next_step(actor)
        quote = None
        # with margin calls the time of the close-out is theirs to decide: contracts/Lens.vy quotes that
        if body is not None and not number.calls and self.node.clock.now_ms() // 1000 >= at:
            fixes = await chain.disputes.proven(actor, body, at)
            to_a, to_b = settle_amounts(
                terms, body, fixes, at, record.deposited_a, record.deposited_b, record.paid_a, record.paid_b
            )
            quote = {"a": format_decimal(to_a, decimals), "b": format_decimal(to_b, decimals)}
        return {**told, "next_step": step, "quote": quote}


def summary(terms: Terms, ours: bytes) -> dict[str, Json]:
    """Terms in a few words and numbers."""
    side = 0 if terms.a.signer == ours else 1
    return {
        "we_are": "ab"[side],
        "counterparty": checksum_address(terms.party(1 - side).signer),
        "our_payout": checksum_address(terms.party(side).payout),
        "collateral": checksum_address(terms.collateral),
        "markets": [feed_symbol(m.feed) for m in terms.markets],
        "price_scan": {feed_symbol(m.feed): format_decimal(m.price_scan) for m in terms.markets},
        "initial_factor": format_decimal(terms.initial_factor),
        "closeout_penalty": format_decimal(terms.closeout_penalty * 100) + "%",
        "challenge_period_s": terms.challenge_period,
        "cure_period_s": terms.cure_period,
        "oracle": f"{terms.oracle.quorum} of {len(terms.oracle.signers)} signers, every {terms.oracle.tick} s",
        "sequencer": "us" if terms.sequencer == side else "peer",
        "in_words": list[Json](in_words(terms, side)),
    }
