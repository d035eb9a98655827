"""JSON-RPC, contract bindings, transactions, keystores and the embedded chain. May import core alone."""
