"""A wallet that trades with a desk and runs no daemon: accept terms, deposit, buy, keep a bundle, sell, be paid.

python wallet.py --key-file key.hex --log wallet.log --desk 0x... --url ws://desk:9735 --rpc http://... --oracle http://...
                 --payout 0x... --deposit 10000 --instrument ETH-PERP --size 1 --price 3000 --bundle wallet.bundle.json

The desk's operator has added the wallet's address as a peer and proposed terms. Needs the extra [light].
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from channeld_client.light import FileLog, KeyWallet, LightPeer, Shown, Transaction

from channeld.chain.contracts import Call
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager


async def approve(shown: Shown) -> bool:
    """Where a person would be asked; here everything that has passed the peer's own checks is signed, and printed."""
    print(f"signing a {shown.kind}: {shown.sentence}")
    return True


class Sender:
    """Sends the wallet's transactions from the same key. A real wallet has its own way."""

    def __init__(self, rpc: ChainRpc, key: bytes, chain_id: int) -> None:
        """key: 32 bytes, with some ether for gas."""
        self._manager = TransactionManager(rpc, LocalSigner(key), chain_id=chain_id)

    async def send(self, transaction: Transaction) -> None:
        """Send one and wait until it is mined."""
        print(f"sending: {transaction.what}")
        await self._manager.transact(Call(transaction.to, transaction.data, transaction.what))


def address(text: str) -> bytes:
    """20 bytes from 0x text."""
    return bytes.fromhex(text.removeprefix("0x"))


async def live(asked: argparse.Namespace) -> None:
    """The whole life of a channel."""
    key = bytes.fromhex(asked.key_file.read_text(encoding="ascii").strip().removeprefix("0x"))
    peer = LightPeer(
        KeyWallet(key),
        FileLog(asked.log),
        desk=address(asked.desk),
        url=asked.url,
        rpc_url=asked.rpc,
        oracle_urls=[asked.oracle],
        payout=address(asked.payout),
        approve=approve,
        confirmations=asked.confirmations,
        devnet=asked.devnet,
    )
    async with ChainRpc(asked.rpc) as rpc, peer:
        sender = Sender(rpc, key, await rpc.chain_id())
        await peer.until(lambda: peer.terms_offered)
        (identifier,) = peer.terms_offered
        await peer.accept_terms("0x" + identifier.hex())
        await peer.until(peer.on_chain, timeout_s=asked.patience)
        for transaction in peer.deposit(asked.deposit):
            await sender.send(transaction)
        await peer.until(lambda: peer.status()["balance"] == asked.deposit, timeout_s=asked.patience)
        await peer.until(lambda: peer.status()["desk_balance"] != "0", timeout_s=asked.patience)
        leg = {"instrument": asked.instrument, "size": asked.size, "price": asked.price}
        print("bought in version", await peer.trade([leg]))
        asked.bundle.write_text(json.dumps(await peer.bundle()), encoding="utf-8")
        print("sold in version", await peer.trade([{**leg, "size": "-" + asked.size}]))
        print("the journal proves version", await peer.audit())
        await sender.send(await peer.end())
        print("ended with", peer.status()["balance"])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key-file", type=Path, required=True, help="the private key in hexadecimal")
    parser.add_argument("--log", type=Path, required=True, help="where the peer keeps its records")
    for name in ("desk", "url", "rpc", "oracle", "payout", "deposit", "instrument", "size", "price"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--bundle", type=Path, required=True, help="where the dispute bundle is written")
    parser.add_argument("--confirmations", type=int, default=12)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for the chain and the desk")
    parser.add_argument("--devnet", action="store_true", help="the clock is that of `channeld devnet`")
    asyncio.run(live(parser.parse_args()))


if __name__ == "__main__":
    main()
