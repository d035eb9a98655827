"""A wallet of one's own key. Any other object with `address` and `sign_typed_data` does as well."""

from __future__ import annotations

import asyncio
from typing import Any

from eth_account import Account

from channeld.core.crypto import address_of


class KeyWallet:
    """Holds a private key in memory. It hashes the typed data it is shown by eth-account, not by channeld."""

    def __init__(self, private_key: bytes) -> None:
        """private_key: 32 bytes."""
        self._key = private_key
        self.address = address_of(private_key)

    async def sign_typed_data(self, data: dict[str, Any]) -> bytes:
        """65 bytes r, s, v on the typed data."""
        signed = await asyncio.to_thread(Account.sign_typed_data, self._key, full_message=data)
        return bytes(signed.signature)
