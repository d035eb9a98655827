"""The protocol, pure: state in, new state and effects out.

Rules of this room: no clock, randomness, files, sockets or threads; nothing of the project outside this room
is imported; all money is integers. tests/core/test_purity.py enforces the imports.
"""
