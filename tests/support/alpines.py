"""Alpine packages and a signed repository, made here: tar and gzip by Python, keys and signatures by openssl."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache, partial
from http.server import ThreadingHTTPServer
from pathlib import Path

from support.images import member, tar_of
from support.mirror import Handler
from support.peers import tool

LD = "lib/ld-musl-x86_64.so.1"
_PREFIX = {"sha1": ".SIGN.RSA.", "sha256": ".SIGN.RSA256.", "sha512": ".SIGN.RSA512."}


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run([tool("openssl"), *map(str, arguments)], input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@cache
def private_key(name: str) -> bytes:
    """PEM; made once for each name. The one called `weak` is."""
    return openssl("genrsa", "-traditional", "1024" if name == "weak" else "2048")


def public_key(name: str) -> bytes:
    """SubjectPublicKeyInfo in PEM."""
    return openssl("rsa", "-pubout", stdin=private_key(name))


def sign(data: bytes, key: str, folder: Path, algorithm: str = "sha1") -> bytes:
    path = folder / f"{key}.pem"
    path.write_bytes(private_key(key))
    return openssl("dgst", f"-{algorithm}", "-sign", path, stdin=data)


def cut(tar: bytes) -> bytes:
    """A tar without the blocks that end it, as abuild-tar --cut leaves it."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        archive.getmembers()
        return tar[: archive.offset]


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def signed(data: bytes, key: str, folder: Path, algorithm: str = "sha1") -> bytes:
    """`data` behind a signature member."""
    name = f"{_PREFIX[algorithm]}{key}.rsa.pub"
    return packed(cut(tar_of(member(name, sign(data, key, folder, algorithm))))) + data


def checksum(control: bytes) -> str:
    return f"Q1{base64.b64encode(hashlib.sha1(control).digest()).decode()}"


class Repository:
    """MIRROR/v9.9/main/x86_64 on loopback."""

    def __init__(self, root: Path, key: str = "good") -> None:
        self.root, self.key = root, key
        self.folder = root / "alpine/v9.9/main/x86_64"
        self.folder.mkdir(parents=True)
        self.keys = root / "keys"
        self.keys.mkdir()
        (self.keys / f"{key}.rsa.pub").write_bytes(public_key(key))
        self.stanzas: dict[str, str] = {}
        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root), asked=self.asked))
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/alpine"

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def add(
        self, name: str, members: Sequence[tuple[tarfile.TarInfo, bytes]], version: str = "1.0-r0", *,
        depends: str = "", provides: str = "", datahash: str = "", algorithm: str = "sha1", extra: str = "",
        info: Mapping[str, str] | None = None,
    ) -> Path:  # fmt: skip
        """A package, in the repository when `write` comes."""
        data = packed(tar_of(*members))
        fields = {"pkgname": name, "pkgver": version, "arch": "x86_64",
                  "datahash": datahash or hashlib.sha256(data).hexdigest()} | dict(info or {})  # fmt: skip
        text = "# made by a test\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())
        control = packed(cut(tar_of(member(".PKGINFO", text.encode()))))
        path = self.folder / f"{name}-{version}.apk"
        path.write_bytes(signed(control, self.key, self.root, algorithm) + data)
        self.stanzas[name] = (
            f"C:{checksum(control)}\nP:{name}\nV:{version}\nA:x86_64\nS:{path.stat().st_size}\nI:1\nT:a test\nL:MIT\n"
            f"o:{name}\nD:{depends}\np:{provides}\n{extra}"
        )
        return path

    def write(self, key: str = "", algorithm: str = "sha1") -> None:
        """Make and sign the index."""
        text = "".join(f"{stanza}\n" for stanza in self.stanzas.values())
        data = packed(tar_of(member("DESCRIPTION", b"v9.9"), member("APKINDEX", text.encode())))
        (self.folder / "APKINDEX.tar.gz").write_bytes(signed(data, key or self.key, self.root, algorithm))
