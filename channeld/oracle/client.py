"""Where a daemon gets packages from, and where it keeps them.

Rules: nothing is trusted because of where it comes from. Every package is judged (its form, signer, time and feed)
before it is passed on or archived; what fails is dropped, and named in the error if nothing is left. Sources are asked
in order until every signer has been heard; whatever was found then is the answer, even below the quorum: whether it
suffices is for `print_price` and `fix_price` to say. Times are Unix seconds, feeds 32-byte ids.

RedStone's public gateways are gateway.py's; several sources or archives as one are redundant.py's.
"""

from __future__ import annotations

import asyncio
import os
import string
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import aiohttp

from channeld.core.errors import ChanneldError, OracleError
from channeld.core.packages import (
    MARKER,
    MalformedPackageError,
    sample_times,
    select,
    split_packages,
    split_payload,
    verify_package,
)
from channeld.core.strict_json import read_json
from channeld.core.terms import MAX_SIGNERS, Oracle, feed_symbol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

MAX_ANSWER = 262_144
MAX_FILE = 1_048_576
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_-")


class PackagesUnavailableError(OracleError):
    """No source has a good package for a feed and time."""

    code = 4058
    advice = "Check the oracle's URLs and that its signers are those of the terms; the daemon tries again by itself."


class PackagesNotYetError(PackagesUnavailableError):
    """The sources answer that the time is not reached."""

    code = 4059
    advice = "Ask again when the time is reached."


class ArchiveError(OracleError):
    """The archive of packages cannot be read or written."""

    code = 4060
    advice = "Check the directory, its permissions and the space on its disk."


class PackageSource(Protocol):
    """Packages by feed and time."""

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """Good packages of the feed at t (Unix seconds): at most one per signer, signers ascending; at least one.

        Raises:
            PackagesNotYetError: t is not reached.
            PackagesUnavailableError: nothing good was found.

        """
        ...


class Archive(Protocol):
    """What keeps packages: any of them may be needed again for a fix, long after the signers forgot them."""

    async def put(self, feed: bytes, t: int, packages: Iterable[bytes]) -> None:
        """Keep packages of the feed at t, beside what is kept already. Raises ArchiveError."""
        ...

    async def get(self, feed: bytes, t: int) -> list[bytes]:
        """What is kept for the feed at t, not judged; empty where nothing is. Raises ArchiveError."""
        ...


class Gathering:
    """Packages of one feed and time as they are found: judged, one per signer, and why others were dropped."""

    def __init__(self, oracle: Oracle, feed: bytes, t: int) -> None:
        """Nothing found yet."""
        self._oracle, self._feed, self._t = oracle, feed, t
        self._found: dict[int, bytes] = {}
        self.dropped: list[str] = []

    def add(self, packages: Iterable[bytes]) -> None:
        """Judge packages and keep the good ones; of one signer the shortest, then the smallest bytes, as `select`."""
        for raw in packages:
            try:
                _, signer, _ = verify_package(self._oracle, self._feed, (self._t,), raw)
            except OracleError as error:
                self.dropped.append(str(error))
                continue
            held = self._found.get(signer)
            if held is None or (len(raw), raw) < (len(held), held):
                self._found[signer] = raw

    @property
    def complete(self) -> bool:
        """Whether every signer has been heard."""
        return len(self._found) == len(self._oracle.signers)

    def result(self) -> list[bytes]:
        """The good packages, signers ascending."""
        return [self._found[signer] for signer in sorted(self._found)]

    def unavailable(self, reasons: Sequence[str] = ()) -> PackagesUnavailableError:
        """The error that says why there is nothing."""
        why = "; ".join([*reasons, *self.dropped][:MAX_SIGNERS]) or "nothing was offered"
        return PackagesUnavailableError(f"no package for {feed_symbol(self._feed)} at {self._t}: {why}")


async def read_limited(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of an answer, of at most so many bytes.

    Raises:
        MalformedPackageError: it is longer; the rest is not read.
    """
    body = bytearray()
    async for chunk in response.content.iter_chunked(16_384):
        body += chunk
        if len(body) > most:
            raise MalformedPackageError(f"the answer exceeds {most} bytes")
    return bytes(body)


class HttpSource(ABC):
    """Packages over HTTP from several URLs, the one that served last first; how one URL is asked is a subclass's."""

    def __init__(self, oracle: Oracle, urls: Sequence[str], *, timeout_s: float = 5.0) -> None:
        """Take base URLs; nothing is asked yet. timeout_s bounds each request, in seconds."""
        self._oracle = oracle
        self._urls = [url.rstrip("/") for url in urls]
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._opened: aiohttp.ClientSession | None = None

    @abstractmethod
    async def _offered(self, url: str, feed: bytes, t: int) -> tuple[list[bytes], list[str]]:
        """What one URL offers, not judged, and why it dropped what it did.

        Raises:
            OracleError, aiohttp.ClientError, TimeoutError: it has nothing to offer.
        """

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """As PackageSource; an URL that fails is passed over for the next."""
        gathering = Gathering(self._oracle, feed, t)
        reasons: list[str] = []
        early = 0
        for url in list(self._urls):
            before = len(gathering.result())
            try:
                found, dropped = await self._offered(url, feed, t)
                gathering.add(found)
                reasons += [f"{url}: {why}" for why in dropped]
            except PackagesNotYetError:
                early += 1
            except (OracleError, aiohttp.ClientError, TimeoutError) as error:
                reasons.append(f"{url}: {str(error) or type(error).__name__}")
            if before == 0 and gathering.result():
                self._urls.remove(url)
                self._urls.insert(0, url)
            if gathering.complete:
                break
        if gathering.result():
            return gathering.result()
        if early and not reasons:
            raise PackagesNotYetError(f"{feed_symbol(feed)} at {t}: the oracle has not reached that time", time=t)
        raise gathering.unavailable(reasons)

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(timeout=self._timeout)
        return self._opened

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()


class HttpPackages(HttpSource):
    """Packages from services like `channeld oracle serve`."""

    async def _offered(self, url: str, feed: bytes, t: int) -> tuple[list[bytes], list[str]]:
        params = {"feed": feed_symbol(feed), "timestamp_ms": str(t * 1000)}
        async with self._session().get(f"{url}/packages", params=params, allow_redirects=False) as response:
            return _packages_of_answer(await read_limited(response, MAX_ANSWER), response.status), []


_NOT_REACHED_CODE = 4054


def _packages_of_answer(body: bytes, status: int) -> list[bytes]:
    """The packages in a service's answer; its error, where it is one."""
    try:
        answer = read_json(body)
    except ValueError as error:
        raise MalformedPackageError(f"the answer (HTTP {status}) is no JSON") from error
    refused = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(refused, dict):
        if refused.get("code") == _NOT_REACHED_CODE:
            raise PackagesNotYetError(str(refused.get("message"))[:200])
        raise PackagesUnavailableError(f"HTTP {status}: {str(refused.get('message'))[:200]}")
    listed = answer.get("packages") if isinstance(answer, dict) else None
    if status != 200 or not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise MalformedPackageError(f"the answer (HTTP {status}) holds no list of packages")
    try:
        return [bytes.fromhex(text.removeprefix("0x")) for text in listed]
    except ValueError as error:
        raise MalformedPackageError("the answer holds a package that is not hexadecimal") from error


def _feed_folder(feed: bytes) -> str:
    """A folder name for a feed: its symbol where that is a plain name, else hexadecimal."""
    symbol = feed_symbol(feed)
    return symbol if symbol and set(symbol) <= _NAME_CHARACTERS and not symbol.startswith("0x") else "0x" + feed.hex()


def _packages_of_lines(text: str) -> list[bytes]:
    """Packages of a text file of hexadecimal: a payload, or signed packages on any number of lines."""
    found: list[bytes] = []
    for line in text.split():
        raw = bytes.fromhex(line.removeprefix("0x"))
        found += split_payload(raw).packages if raw.endswith(MARKER) else split_packages(raw)
    return found


class FolderArchive:
    """An archive of small files, FOLDER/FEED/SECONDS.hex, a package on each line. Writes are atomic and durable."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made when something is first put."""
        self._folder = folder
        self._lock = asyncio.Lock()

    def path(self, feed: bytes, t: int) -> Path:
        """The file of a feed and time."""
        return self._folder / _feed_folder(feed) / f"{t}.hex"

    async def put(self, feed: bytes, t: int, packages: Iterable[bytes]) -> None:
        """Keep packages beside those kept already. Raises ArchiveError."""
        given = list(packages)
        async with self._lock:
            await asyncio.to_thread(self._put, self.path(feed, t), given)

    async def get(self, feed: bytes, t: int) -> list[bytes]:
        """What is kept; empty where nothing is. Raises ArchiveError."""
        return await asyncio.to_thread(self._get, self.path(feed, t))

    @staticmethod
    def _get(path: Path) -> list[bytes]:
        try:
            if path.stat().st_size > MAX_FILE:
                raise ArchiveError(f"{path} exceeds {MAX_FILE} bytes")
            return _packages_of_lines(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, ChanneldError) as error:
            raise ArchiveError(f"{path} cannot be read: {error}") from error

    @classmethod
    def _put(cls, path: Path, packages: list[bytes]) -> None:
        kept = cls._get(path)
        merged = list(dict.fromkeys([*kept, *packages]))
        if len(merged) == len(kept):
            return
        text = "".join(f"0x{raw.hex()}\n" for raw in merged)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ArchiveError(f"{path} cannot be written: {error}") from error


class FolderPackages:
    """Packages from a folder: an archive's files, and any *.hex payloads or packages that lie in the folder itself."""

    def __init__(self, oracle: Oracle, folder: Path) -> None:
        """Use a folder; it is read at every question."""
        self._oracle = oracle
        self._folder = folder
        self._archive = FolderArchive(folder)

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """As PackageSource; a file that cannot be read is passed over."""
        gathering = Gathering(self._oracle, feed, t)
        reasons: list[str] = []
        for path in await asyncio.to_thread(lambda: [self._archive.path(feed, t), *sorted(self._folder.glob("*.hex"))]):
            try:
                gathering.add(await asyncio.to_thread(self._archive._get, path))  # noqa: SLF001 - one module, one format
            except ArchiveError as error:
                reasons.append(str(error))
        if not gathering.result():
            raise gathering.unavailable(reasons)
        return gathering.result()


class ArchivedPackages:
    """The packages of a daemon: from its archive where that is complete, else from its sources too, and then kept."""

    def __init__(self, oracle: Oracle, sources: Sequence[PackageSource], archive: Archive) -> None:
        """Ask the archive first, then the sources in order until every signer has been heard."""
        self._oracle = oracle
        self._sources = list(sources)
        self._archive = archive

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """As PackageSource. What a source has given is archived before it is returned.

        Raises:
            ArchiveError: the archive cannot be read or written.

        """
        gathering = Gathering(self._oracle, feed, t)
        gathering.add(await self._archive.get(feed, t))
        kept = gathering.result()
        failures: list[PackagesUnavailableError] = []
        for source in self._sources:
            if gathering.complete:
                break
            try:
                gathering.add(await source.packages(feed, t))
            except PackagesUnavailableError as error:
                failures.append(error)
        found = gathering.result()
        if found != kept:
            await self._archive.put(feed, t, found)
        if found:
            return found
        if failures and all(isinstance(error, PackagesNotYetError) for error in failures):
            raise failures[0]
        raise gathering.unavailable([str(error) for error in failures])


async def print_packages(source: PackageSource, oracle: Oracle, feed: bytes, t: int) -> tuple[bytes, ...]:
    """The packages of print(feed, t), for a MARK; empty where there is no quorum.

    Raises:
        PackagesUnavailableError, PackagesNotYetError: the source has none at all.

    """
    return select(oracle, feed, t, await source.packages(feed, t), samples=1)


async def fix_packages(source: PackageSource, oracle: Oracle, feed: bytes, t: int) -> tuple[bytes, ...]:
    """The packages of fix(feed, t) in canonical order, for a MARK or `prove_fix`; samples that fail are left out.

    Empty where no sample has a quorum; `fix_price` says whether what there is suffices.

    Raises:
        PackagesNotYetError: t is not reached.

    """
    pile: list[bytes] = []
    for time in sample_times(oracle, t):
        try:
            pile += await source.packages(feed, time)
        except PackagesNotYetError:
            raise
        except PackagesUnavailableError:
            continue
    return select(oracle, feed, t, pile)
