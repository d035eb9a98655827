"""Enforcing a channel from a bundle and an RPC URL alone: no daemon, no database, no configuration."""
