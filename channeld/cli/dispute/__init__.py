"""`channeld dispute`: going to the chain, with a daemon or with a bundle file and an RPC URL alone."""
