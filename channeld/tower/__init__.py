"""The watchtower. May import core, chain, transport and store."""
