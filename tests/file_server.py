"""A web server on this machine that serves a folder, and misbehaves in the ways that real ones and networks do."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LAST_MODIFIED = "Mon, 01 Jan 2024 00:00:00 GMT"


@dataclass(frozen=True)
class Asked:
    """What a request asked for."""

    path: str
    range: str | None
    if_range: str | None
    encoding: str | None


@dataclass
class FileServer:
    """What is served, how, and what was asked. Everything can be changed between requests.

    Attributes:
        folder: Read anew at each request: another content is another ETag.
        cut_after: Bytes of a body after which the connection is broken, one entry a request, then never.
        reset: Break connections with a reset instead of an orderly end.
        stall_after: Bytes of a body after which nothing more comes.
        ignore_range: Answer every request with the whole file.
        ignore_if_range: Send ranges whatever version is asked for.
        piece: The most bytes that are sent of a range.
        wrong_range: Added to the first byte of Content-Range.
        wrong_total: Added to the size in Content-Range.
        wrong_length: Added to Content-Length.
        no_length: Send neither Content-Length nor chunks, just the bytes.
        chunked: Send chunks.
        surplus: Bytes sent after the file's end.
        validator: What names the version: an ETag, a weak one with Last-Modified, Last-Modified, or nothing.
        statuses: Sent instead of files, one a request.
        page: Sent with 200 instead of every file.
        headers: Sent with every answer.
        asked: What was asked, in order.
    """

    folder: Path
    url: str = ""
    cut_after: list[int] = field(default_factory=list)
    reset: bool = False
    stall_after: int | None = None
    ignore_range: bool = False
    ignore_if_range: bool = False
    piece: int | None = None
    wrong_range: int = 0
    wrong_total: int = 0
    wrong_length: int = 0
    no_length: bool = False
    chunked: bool = False
    surplus: bytes = b""
    validator: str = "etag"
    statuses: list[int] = field(default_factory=list)
    page: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [asked.range for asked in self.asked]


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    """A server for the block."""
    state = FileServer(folder)

    class Bound(_Handler):
        server_state = state

    with _Server(("127.0.0.1", 0), Bound) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/LaMP"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client went away; that is what clients do here."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FileServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        state.asked.append(
            Asked(
                self.path, self.headers.get("Range"), self.headers.get("If-Range"), self.headers.get("Accept-Encoding")
            )
        )
        file = state.folder / self.path.removeprefix("/LaMP/")
        if state.statuses:
            self._plain(state.statuses.pop(0))
        elif state.page is not None:
            self._send(state.page, {}, 200)
        elif not file.is_file():
            self._plain(404)
        else:
            self._file(file.read_bytes())

    def _plain(self, status: int) -> None:
        body = b"<html>no file</html>"
        self.send_response(status)
        for name, value in self.server_state.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, content: bytes) -> None:
        state = self.server_state
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers, names = self._version(tag)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = state.ignore_if_range or self.headers.get("If-Range") in names
        if wanted is None or state.ignore_range or not same:
            self._send(content, headers, 200)
            return
        start = int(wanted[1])
        if start >= len(content):
            self._plain(416)
            return
        first, total = start + state.wrong_range, len(content) + state.wrong_total
        rest = content[start:][: state.piece]
        headers["Content-Range"] = f"bytes {first}-{first + len(rest) - 1}/{total}"
        self._send(rest, headers, 206)

    def _version(self, tag: str) -> tuple[dict[str, str], tuple[str, ...]]:
        """Headers that name the version, and what If-Range may hold to match it."""
        match self.server_state.validator:
            case "etag":
                return {"ETag": tag}, (tag,)
            case "weak":
                return {"ETag": f"W/{tag}", "Last-Modified": LAST_MODIFIED}, (LAST_MODIFIED,)
            case "date":
                return {"Last-Modified": LAST_MODIFIED}, (LAST_MODIFIED,)
        return {}, ()

    def _send(self, body: bytes, headers: dict[str, str], status: int) -> None:
        state = self.server_state
        body += state.surplus
        self.send_response(status)
        for name, value in {**headers, **state.headers}.items():
            self.send_header(name, value)
        if state.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not state.no_length:
            self.send_header("Content-Length", str(len(body) + state.wrong_length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self._body(body)

    def _body(self, body: bytes) -> None:
        state = self.server_state
        if state.cut_after:
            self._write(body[: state.cut_after.pop(0)])
            self._break()
        elif state.stall_after is not None:
            self._write(body[: state.stall_after])
            state.closing.wait(60)
        else:
            self._write(body)
            if state.chunked:
                self.wfile.write(b"0\r\n\r\n")

    def _write(self, body: bytes) -> None:
        if self.server_state.chunked and body:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self.wfile.write(body)

    def _break(self) -> None:
        if self.server_state.reset:
            # SO_LINGER of 0 seconds.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
