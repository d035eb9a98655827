"""A peer without a daemon, for wallets: `pip install channeld-client[light]`.

Rules: it follows and never orders, so it need not be there all the time; whatever it signs was checked by itself and
shown as typed data with a plain sentence; what it signs is durable before it leaves. The protocol is channeld's own
core and its channel at work: no rule is written a second time here.
"""

from channeld.daemon.wallet_signer import Shown, Wallet, WalletRefusedError, WrongWalletError
from channeld_client.light.chain import Transaction
from channeld_client.light.log import FileLog, Log, LogDamagedError, MemoryLog
from channeld_client.light.peer import LightPeer, NotOurTermsError
from channeld_client.light.wallet import KeyWallet

__all__ = [
    "FileLog",
    "KeyWallet",
    "LightPeer",
    "Log",
    "LogDamagedError",
    "MemoryLog",
    "NotOurTermsError",
    "Shown",
    "Transaction",
    "Wallet",
    "WalletRefusedError",
    "WrongWalletError",
]
