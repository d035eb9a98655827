"""The watchtower: holds hashes and signatures of others' channels, and refutes old states on chain."""
