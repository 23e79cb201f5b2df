"""Where files come from: a web server, or a folder of this machine; each request is one attempt at one file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lampbench.core import InputError, LampBenchError, later

if TYPE_CHECKING:
    from http import client

    import requests
    from urllib3 import exceptions as transport
else:
    client, requests, transport = later("http.client"), later("requests"), later("urllib3.exceptions")

CLOSED = "the connection was closed"
_CHUNK = 1 << 16
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:(\d+)|\*)")
# Answers of a server that is overloaded or being restarted; the request is not wrong.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long a source is waited for, in seconds.

    Attributes:
        connect: For a connection.
        read: For the next bytes.
        waits: Before each new attempt after one without progress; after the last of them, give up.
    """

    connect: float = 10
    read: float = 60
    waits: tuple[float, ...] = (0.5, 1, 2)


PATIENCE = Patience()


@dataclass(frozen=True)
class Version:
    """What a source says about the file it sends: its address, ETag or Last-Modified, and size."""

    url: str
    validator: str | None
    total: int | None


@dataclass(frozen=True)
class Answer:
    """Bytes from a source; ``start`` is where in the file they belong."""

    version: Version
    start: int
    chunks: Iterator[bytes]


class BrokenError(Exception):
    """The source did not answer, or not completely.

    Attributes:
        status: Whether the reason is a server's status.
        reached: Whether the source ever answered.
        hopeless: Whether no further attempt should be made.
    """

    def __init__(self, reason: str, *, status: bool = False, reached: bool = True, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reached = reached
        self.hopeless = hopeless


class UnfitError(Exception):
    """The source's answer does not continue the ``.part``."""


class Origin(Protocol):
    """Where files come from."""

    def url(self, path: str) -> str:
        """Where the file is, for messages and ``.part.json``."""

    def ask(self, path: str, offset: int, held: Version | None) -> AbstractContextManager[Answer]:
        """The file from ``offset`` on if it is still the version ``held``, else from its start.

        Raises:
            BrokenError: Another attempt may help.
            UnfitError: The answer does not continue what is held.
            InputError: There is no such file.
            LampBenchError: No attempt will help.
        """

    def close(self) -> None:
        """Close connections."""


def open_origin(source: str, patience: Patience) -> Origin:
    """The source that a URL (http, https, file) or a folder's path names.

    Raises:
        InputError: Another scheme, or no such folder.
    """
    if re.match(r"https?://[^/]", source, re.IGNORECASE):
        return _Server(source, patience)
    if re.match(r"file://", source, re.IGNORECASE):
        parts = urlsplit(source)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"--source {source}: files of another host ({parts.netloc}); expected file:///…")
        return _Folder(source, Path(url2pathname(parts.path)))
    if "://" in source:
        raise InputError(f"--source {source}: expected http://…, https://…, file:///… or a folder")
    return _Folder(source, Path(source))


class _Folder:
    """Files in a folder of this machine."""

    def __init__(self, name: str, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"--source {name}: no such folder")
        self._root = root

    def url(self, path: str) -> str:
        return str(self._root / path)

    @contextmanager
    def ask(self, path: str, offset: int, held: Version | None) -> Iterator[Answer]:
        """The whole file: a copy is fast enough not to be resumed."""
        file = self._root / path
        try:
            stream = file.open("rb")
            size = os.fstat(stream.fileno()).st_size
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise InputError(
                f"{file}: {reason}; a mirror has the layout of LaMP's server (docs/data.md); "
                "files that are in LaMP_5/train and so on already need no download: --data names their folder"
            ) from None
        with stream:
            yield Answer(Version(self.url(path), None, size), 0, self._chunks(stream, file))

    def _chunks(self, stream: BinaryIO, file: Path) -> Iterator[bytes]:
        try:
            while chunk := stream.read(_CHUNK):
                yield chunk
        except OSError as error:
            raise LampBenchError(f"{file}: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is held."""


class _Server:
    """Files of a web server."""

    def __init__(self, base: str, patience: Patience) -> None:
        self._base = base.rstrip("/")
        self._patience = patience
        self._session = requests.Session()
        self._answered = False

    def url(self, path: str) -> str:
        """Without a name and password that the source may carry: this is shown and written down."""
        return re.sub(r"//[^/]*@", "//", f"{self._base}/{path}", count=1)

    def close(self) -> None:
        self._session.close()

    @contextmanager
    def ask(self, path: str, offset: int, held: Version | None) -> Iterator[Answer]:
        # Packed bytes have other lengths and ranges than the file.
        headers = {"Accept-Encoding": "identity"}
        if held and held.validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": held.validator}
        with self._get(path, headers) as response:
            self._answered = True
            _check_status(response, self.url(path), bool(held))
            yield self._answer(response, self.url(path), offset, held)

    def _get(self, path: str, headers: dict[str, str]) -> requests.Response:
        limits = (self._patience.connect, self._patience.read)
        try:
            return self._session.get(f"{self._base}/{path}", headers=headers, stream=True, timeout=limits)
        except requests.exceptions.InvalidURL:
            raise InputError(f"{self.url(path)}: not a URL; is --source right?") from None
        except (requests.ConnectionError, requests.Timeout) as error:
            # Before the first answer, do not wait for a blocked network or a wrong certificate.
            for_good = isinstance(error, (requests.exceptions.SSLError, requests.ConnectTimeout))
            hopeless = for_good and not self._answered
            raise BrokenError(self._reason(error), reached=self._answered, hopeless=hopeless) from None
        except requests.RequestException as error:
            raise LampBenchError(f"{self.url(path)}: {self._reason(error)}") from None

    def _answer(self, response: requests.Response, url: str, offset: int, held: Version | None) -> Answer:
        length = _number(response.headers.get("Content-Length"))
        validator = _validator(response)
        if response.status_code == 200:
            return Answer(Version(url, validator, length), 0, self._chunks(response))
        found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if held is None or found is None or int(found[1]) != offset:
            raise UnfitError(f"the server sent the range {response.headers.get('Content-Range', '')[:60]!r}")
        total = _number(found[2]) or held.total
        if validator not in (None, held.validator) or total != (held.total or total):
            raise UnfitError("the server sent a range of another version")
        if total is None and length is not None:
            total = offset + length
        return Answer(Version(url, held.validator, total), offset, self._chunks(response))

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.raw.stream(_CHUNK, decode_content=False)
        except transport.HTTPError as error:
            raise BrokenError(self._reason(error)) from None

    def _reason(self, error: BaseException) -> str:
        """The innermost cause, in a few words."""
        while (inner := error.__cause__ or error.__context__) and isinstance(inner, (OSError, transport.HTTPError)):
            error = inner
        if isinstance(error, TimeoutError):
            return f"no answer within {self._patience.connect:g} s, or no bytes for {self._patience.read:g} s"
        if isinstance(error, (transport.ProtocolError, client.IncompleteRead)):
            return CLOSED
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return str(text).splitlines()[0]


def _check_status(response: requests.Response, url: str, resumed: bool) -> None:
    status = response.status_code
    # Not in the server's words, which may contain anything.
    answer = f"the server answers {status} {client.responses.get(status, '')}".rstrip()
    if status in _PASSING:
        raise BrokenError(answer, status=True)
    if status in (404, 410):
        raise InputError(f"{url}: {answer}; is --source right?")
    if status == 416 and resumed:
        raise UnfitError(answer)
    if status not in (200, 206):
        raise LampBenchError(f"{url}: {answer}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        packed = response.headers["Content-Encoding"]
        raise LampBenchError(f"{url}: the server sent the file packed ({packed!r}), though asked not to")


def _validator(response: requests.Response) -> str | None:
    # A weak ETag does not promise equal bytes, and If-Range takes none.
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]+", text) else None
