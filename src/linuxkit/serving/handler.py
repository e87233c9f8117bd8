"""A folder over HTTP, for machines that boot from the network: files with ranges, listings, and scripts for iPXE.

    /FILE         the file (RFC 9110: Range, If-Range, If-None-Match, HEAD)
    /NAME.ipxe    the script that boots NAME, unless there is such a file
    /boot.ipxe    the script for the system that was chosen, or a menu of what is there
    /FOLDER/      its index.html, or a listing

Read only. Nothing outside the folder is served, by whatever name or link, and nothing whose name begins with a dot.
"""

from __future__ import annotations

import html
import os
import re
import stat
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from linuxkit.errors import InputError
from linuxkit.serving import ipxe
from linuxkit.serving.inside import inside
from linuxkit.serving.seats import PATIENCE

if TYPE_CHECKING:
    from linuxkit.serving.server import Server

#: Bytes that are sent at a time: with each, the client's seat knows that it takes them.
CHUNK = 1 << 17
MAX_LISTED = 10_000
TYPES = {".ipxe": "text/plain; charset=utf-8", ".txt": "text/plain; charset=utf-8", ".json": "application/json",
         ".html": "text/html; charset=utf-8", ".yml": "text/plain; charset=utf-8"}  # fmt: skip


def _quoted(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _at_once(path: str, flags: int) -> int:
    """Opens a file without waiting for the other end of a pipe, and no link that came into its place."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """The part of a file that a Range field asks for, its first byte and the one behind its last (RFC 9110, 14.1.2).

    Returns:
        None for all of it: no range, several, or none that is understood.

    Raises:
        ValueError: it lies outside.
    """
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", text.strip(), re.ASCII)
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= end:
        raise ValueError(text)
    return start, end


class Handler(BaseHTTPRequestHandler):
    """Answers one client."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "linuxkit", ""
    timeout = PATIENCE

    def handle_one_request(self) -> None:
        self.server.seats.waits()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: send_response's line comes before it is known how much was sent."""

    def log_error(self, format: str, *args: object) -> None:
        if format.startswith("code"):  # a request that isn't one
            self.server.log(f"{self.client_address[0]} bad request: {args[0]}")

    def _note(self, status: int, size: int) -> None:
        line = "".join(c if c.isprintable() else "?" for c in self.requestline)[:500]
        self.server.log(f'{self.client_address[0]} "{line}" {status} {size}')

    def _answer(self) -> None:
        self.server.seats.takes()
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows would be taken for a request
        try:
            path = unquote(urlsplit(self.path).path, errors="surrogateescape")
            made = self._made(path)
            if made is not None:
                self._send(made.encode(errors="replace"), TYPES[".ipxe"])
                return
            found = self._find(path)
            if found is not None and found.is_dir():
                index = found / "index.html"
                if not path.endswith("/"):
                    self._fail(HTTPStatus.MOVED_PERMANENTLY, location="/" + _quoted(path.strip("/")) + "/")
                    return
                if not index.is_file():
                    self._send(self._listing(found).encode(errors="surrogateescape"), TYPES[".html"])
                    return
                found = self._find(path + "index.html")
            if found is None:
                self._fail(HTTPStatus.NOT_FOUND)
                return
            with open(found, "rb", opener=_at_once) as file:
                self._file(file, TYPES.get(found.suffix, "application/octet-stream"))
        except InputError as e:
            self._send(f"{e.message}\n".encode(errors="replace"), TYPES[".txt"], HTTPStatus.INTERNAL_SERVER_ERROR)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            self._fail(HTTPStatus.NOT_FOUND)
        except ValueError:  # an address that is none
            self._fail(HTTPStatus.BAD_REQUEST)

    def _find(self, path: str) -> Path | None:
        """The file or folder of a path, when it is one of ours."""
        parts = [part for part in path.split("/") if part]
        if not path.startswith("/") or "\0" in path or any(part.startswith(".") for part in parts):
            return None
        found = inside(self.server.folder, self.server.folder.joinpath(*parts))
        return found if found is not None and (found.is_dir() or not path.endswith("/")) else None

    def _made(self, path: str) -> str | None:
        """The script that a path asks for, where there is no such file."""
        if not path.endswith(".ipxe") or self._find(path) is not None:
            return None
        parent, _, name = path.removesuffix(".ipxe").rpartition("/")
        folder = self._find(parent + "/")
        if folder is None or not folder.is_dir() or not name or name.startswith("."):
            return None
        made = ipxe.script(self.server.folder, folder, name)
        if made is None and name == "boot" and folder == self.server.folder:
            names = [self.server.chosen] if self.server.chosen else ipxe.systems(folder)
            if len(names) == 1:
                return ipxe.script(self.server.folder, folder, names[0])
            made = ipxe.menu(names) if names else None
        return made

    def _listing(self, folder: Path) -> str:
        rows = []
        with os.scandir(folder) as entries:
            for entry in sorted(list(entries)[:MAX_LISTED], key=lambda e: e.name):
                if not entry.name.startswith("."):
                    name = entry.name + "/" * entry.is_dir()
                    rows.append(f'<li><a href="{_quoted(name)}">{html.escape(name)}</a>')
        rows += [f'<li><a href="{quote(n)}.ipxe">{html.escape(n)}.ipxe</a> (made)' for n in ipxe.systems(folder)]
        return "<!doctype html>\n<meta charset=utf-8><title>Files</title>\n<ul>\n" + "\n".join(rows) + "\n</ul>\n"

    # -- answers

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._head(status, len(data), kind)
        if self.command != "HEAD":
            self.wfile.write(data)
        self._note(status, len(data))

    def _fail(self, status: HTTPStatus, *, location: str = "", size: int | None = None) -> None:
        more = {"Location": location} if location else {}
        if size is not None:
            more["Content-Range"] = f"bytes */{size}"
        text = f"{status.value} {status.phrase}\n".encode()
        self._head(status, len(text), TYPES[".txt"], more)
        if self.command != "HEAD":
            self.wfile.write(text)
        self._note(status, 0)

    def _head(self, status: HTTPStatus, size: int, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, file: BinaryIO, kind: str) -> None:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):  # a pipe, a device
            self._fail(HTTPStatus.NOT_FOUND)
            return
        tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        more = {"Accept-Ranges": "bytes", "ETag": tag, "Last-Modified": formatdate(found.st_mtime, usegmt=True)}
        if tag in self.headers.get("If-None-Match", ""):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", tag)
            self.end_headers()
            self._note(HTTPStatus.NOT_MODIFIED, 0)
            return
        size, status = found.st_size, HTTPStatus.OK
        try:
            current = self.headers.get("If-Range", tag) == tag
            part = parse_range(self.headers.get("Range", ""), size) if current else None
        except ValueError:
            self._fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, size=size)
            return
        start, end = part or (0, size)
        if part is not None:
            status, more["Content-Range"] = HTTPStatus.PARTIAL_CONTENT, f"bytes {start}-{end - 1}/{size}"
        self._head(status, end - start, kind, more)
        sent = 0
        if self.command != "HEAD":
            self.wfile.flush()
            while sent < end - start:
                count = self.connection.sendfile(file, start + sent, min(CHUNK, end - start - sent))
                if not count:  # it became shorter
                    self.close_connection = True
                    break
                sent += count
                self.server.seats.sent(count)
        self._note(status, sent)
