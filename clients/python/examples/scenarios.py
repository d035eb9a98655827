"""The scenarios that decide a channel's margin, worst first, as a DataFrame. Needs the extra [pandas].

python scenarios.py --data ~/.channeld --channel PEER
"""

from __future__ import annotations

import argparse

from channeld_client import SyncDesk
from channeld_client.frames import scenarios


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the desk's data directory")
    parser.add_argument("--channel", required=True, help="the channel's id, or the peer's name")
    asked = parser.parse_args()
    with SyncDesk.of(asked.data) as desk:
        margin = desk.margin(channel=asked.channel)
    # floats are good enough to look at; the exact Decimals are there without `floats`
    table = scenarios(margin, floats=True)
    print(table.sort_values("weighted")[["market", "scenario", "price", "profit", "weighted"]].to_string(index=False))


if __name__ == "__main__":
    main()
