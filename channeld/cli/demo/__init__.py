"""The demo: a trading day of two desks on a devnet, each part a process of its own, driven by their APIs alone."""
