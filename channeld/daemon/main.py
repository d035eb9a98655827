"""Running a desk's daemon in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import structlog
import uvloop

from channeld.chain.keystore import load_keystore
from channeld.daemon import logs
from channeld.daemon.api import ApiServer, ensure_token, tls_context
from channeld.daemon.node import Node
from channeld.daemon.tuning import tune

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.daemon.config import Config

log = structlog.get_logger(__name__)


def run(config: Config, password: str, ready: Callable[[str], None] | None = None) -> None:
    """Run until SIGINT, SIGTERM or private/shutdown; `ready` is told where the API listens.

    Raises:
        ChanneldError: what stands in the way of starting; nothing was signed and nothing is left running.
    """
    logs.setup(config.log.level, config.log.format, file=config.log.file or None, fields={"desk": config.desk.name})
    key = load_keystore(config.data_path / "keystore.json", password)
    tune()
    uvloop.run(_run(config, key, ready))


async def _run(config: Config, key: bytes, ready: Callable[[str], None] | None) -> None:
    settings, data = config.api, config.data_path
    # before anything is opened: a certificate that cannot be used stands in the way of nothing else
    tls = tls_context(data / settings.tls_cert, data / settings.tls_key) if settings.tls_cert else None
    node = Node(config, key)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, node.stopping.set)
    await node.start()
    api = ApiServer(node, ensure_token(config.data_path / "api.token"))
    try:
        await api.start(*config.api_address, tls=tls)
        log.info("ready", api=config.api.listen, peers=config.peers.listen, address="0x" + node.signer.address.hex())
        if ready is not None:
            ready(f"desk {config.desk.name} ready: API at {config.api_scheme}://{config.api.listen}/api")
        await node.stopping.wait()
    finally:
        await api.stop()
        await node.stop()
    log.info("stopped")
    if node.failure is not None:
        raise node.failure
