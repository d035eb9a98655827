"""Ask what a trade would do to the margin, make it if it leaves enough, and say what came of it.

python trade.py --data ~/.channeld --channel PEER --instrument ETH-PERP --size 1 --price 3000 --keep-free 1000
"""

from __future__ import annotations

import argparse
import asyncio
from decimal import Decimal

from channeld_client import AnswerLostError, Desk, MarginError, PeerFailedError


async def trade(asked: argparse.Namespace) -> str:
    """Trade; what came of it."""
    leg = {"instrument": asked.instrument, "size": asked.size, "price": asked.price}
    async with Desk.of(asked.data) as desk:
        asked_first = await desk.what_if(channel=asked.channel, legs=[leg])
        after = asked_first["after"]
        if asked_first["refused"] is not None or after is None:
            return f"refused: {asked_first['refused']}"
        free = Decimal(after[asked_first["us"]]["free"])
        if free < asked.keep_free:
            return f"it would leave {free} free, less than {asked.keep_free}"
        try:
            done = await desk.trade(channel=asked.channel, legs=[leg], reference="example", wait_s=20)
        except MarginError as error:
            return f"refused for margin: {error.details}"
        except PeerFailedError as error:
            return f"{error}; {error.advice}"
        except AnswerLostError as error:
            # it may have been made: the reference finds it
            rows = await desk.journal(channel=asked.channel)
            made = [one for one in rows if any(op.get("reference") == "example" for op in one["operations"])]
            return f"{error}; in the journal: {[one['version'] for one in made]}"
        return f"{done['status']} in version {done.get('version')}, free equity {free}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the desk's data directory")
    parser.add_argument("--channel", required=True, help="the channel's id, or the peer's name")
    parser.add_argument("--instrument", required=True)
    parser.add_argument("--size", required=True, help="positive buys")
    parser.add_argument("--price", required=True)
    parser.add_argument("--keep-free", type=Decimal, default=Decimal(0), help="free equity to be left")
    print(asyncio.run(trade(parser.parse_args())))


if __name__ == "__main__":
    main()
