"""A Debian mirror on loopback, made of packages that are made here, and a kit with one recipe that draws on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from linuxkit.api import Sources
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.debs import FakeArchive, deb_of, elf_of, program_deb, signer
from support.images import member, symlink

LD = "lib64/ld-linux-x86-64.so.2"
LIB = "usr/lib/x86_64-linux-gnu"
RECIPE = """\
image: tool
description: a test
debian:
  packages: [tool]
  keep: [usr/bin/tool]
files:
  - {path: etc/tool.conf, contents: "x"}
links: {/usr/bin/tool: [bin/t]}
config: {capabilities: [CAP_CHOWN]}
entrypoint: [/usr/bin/tool]
cmd: [--help]
env: [A=b]
workdir: /tmp
labels: {org.example.x: "1"}
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    def __init__(self, *args: Any, asked: list[str], **kwargs: Any) -> None:
        self.asked = asked
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


class Mirror:
    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        self.archive = FakeArchive(root, signer("good"))
        program = elf_of(interpreter=f"/{LD}", needed=["libtool.so.1", "libc.so.6"])
        self.archive.add("tool", program_deb("tool", {"usr/bin/tool": program, "usr/bin/other": b"#!/bin/sh\n"}),
                         Depends="libtool1 (>= 1), libc6, perl, debconf | debconf-2.0")  # fmt: skip
        self.archive.add("libtool1", deb_of(
            member(f"{LIB}/libtool.so.1.0", elf_of(soname="libtool.so.1", needed=["libc.so.6"])),
            symlink(f"{LIB}/libtool.so.1", "libtool.so.1.0"), member("usr/share/doc/libtool1/copyright", b"(c)"),
        ), section="libs", Depends="libc6")  # fmt: skip
        self.archive.add("libc6", deb_of(
            member(f"{LIB}/libc.so.6", elf_of(soname="libc.so.6")), symlink(f"usr/{LD}", "../../" + f"{LIB}/ld.so"),
            member(f"{LIB}/ld.so", elf_of()), member("usr/share/doc/libc6/copyright", b"(c)"),
        ), section="libs")  # fmt: skip
        self.archive.add("perl", program_deb("perl", {"usr/bin/perl": b"perl"}), section="perl")
        self.archive.write()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root), asked=self.asked))
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/debian"

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def path(self, name: str) -> Path:
        (found,) = self.archive.root.rglob(name)
        return found


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    made = Mirror(tmp_path / "mirror")
    yield made
    made.stop()


@pytest.fixture
def kit(tmp_path: Path, mirror: Mirror) -> Callable[..., Kit]:
    """kit(name of its cache) → a kit with one recipe, `tool`."""
    (tmp_path / "kit/tool").mkdir(parents=True)
    (tmp_path / "kit/tool/build.yml").write_text(RECIPE)
    (tmp_path / "guest").mkdir()
    (tmp_path / "keys").mkdir()
    good = signer("good")
    (tmp_path / f"keys/test-{good.fingerprint}.asc").write_bytes(good.public_key())

    def make(name: str = "a", **options: Any) -> Kit:
        cache = tmp_path / name
        settings: dict[str, Any] = {
            "folder": tmp_path / "kit", "guest": tmp_path / "guest", "mirror": mirror.url, "keys": tmp_path / "keys",
            "fetch": Sources(cache).fetch, "apt": False,
        }  # fmt: skip
        return Kit(Store(cache), cache / "kit", **(settings | options))

    return make
