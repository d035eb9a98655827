"""Print a desk's channels, then everything that happens, from the first event on. It can be stopped and started again.

python follow.py --data ~/.channeld [--since SEQ] [--count N]
"""

from __future__ import annotations

import argparse

from channeld_client import SyncDesk


def main() -> None:
    """Follow a desk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the desk's data directory")
    parser.add_argument("--since", type=int, default=0, help="events after this one")
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0 for never")
    asked = parser.parse_args()
    with SyncDesk.of(asked.data) as desk:
        for row in desk.channels():
            print(f"{row['peer']}: {row['balance']} of ours, {row['waits_for'] or 'ready'}")
        with desk.events(asked.since) as events:
            for number, event in enumerate(events, 1):
                print(event.seq, event.kind, event.channel or "", event.data)
                if number == asked.count:
                    break


if __name__ == "__main__":
    main()
