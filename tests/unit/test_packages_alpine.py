"""Alpine's packages as a source of native recipes: signatures, indexes, closure, images, and mirrors that lie."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from linuxkit.api import Sources
from linuxkit.entry import Kind, read_all
from linuxkit.errors import HostError, ImageError, InputError, NetworkError
from linuxkit.packages import apk
from linuxkit.packages.alpine import Alpine, check_branch, find_keys, find_mirror
from linuxkit.packages.apkindex import ApkIndex, Relation, relations, version_key
from linuxkit.packages.rsa import parse_key
from support import alpines
from support.alpines import LD, public_key
from support.debs import elf_of
from support.images import directory, member, symlink, tar_of
from support.packages import Repository as Git
from support.packages import files, image
from support.packages import repository as repository

pytestmark = pytest.mark.unit
Make = Callable[..., Alpine]


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[alpines.Repository]:
    (tmp_path / "mirror").mkdir()
    made = alpines.Repository(tmp_path / "mirror")
    program = elf_of(interpreter=f"/{LD}", needed=["libtool.so.1", "libc.musl-x86_64.so.1"])
    made.add("tool", [directory("usr"), member("usr/bin/tool", program, mode=0o755), member("bin/other", b"#!/bin/sh")],
             "1.0-r1", depends="so:libtool.so.1 so:libc.musl-x86_64.so.1 busybox /bin/sh !nothing",
             provides="cmd:tool=1.0-r1")  # fmt: skip
    made.add("tool-libs", [member("usr/lib/libtool.so.1.2", elf_of(soname="libtool.so.1", needed=["libdeep.so.3"])),
                           symlink("usr/lib/libtool.so.1", "libtool.so.1.2")],
             depends="deep", provides="so:libtool.so.1=1.2 pc:tool=1.2")  # fmt: skip
    made.add("deep", [member("lib/libdeep.so.3", elf_of(soname="libdeep.so.3"))], provides="so:libdeep.so.3=3")
    made.add("musl", [member(LD, elf_of(soname="libc.musl-x86_64.so.1")),
                      symlink("lib/libc.musl-x86_64.so.1", "ld-musl-x86_64.so.1")],
             provides="so:libc.musl-x86_64.so.1=1", algorithm="sha256")  # fmt: skip
    made.add("busybox", [member("bin/busybox", b"bb")], provides="/bin/sh cmd:sh=1")
    made.write()
    yield made
    made.stop()


@pytest.fixture
def alpine(tmp_path: Path, mirror: alpines.Repository) -> Make:
    def make(**options: object) -> Alpine:
        keys = find_keys(mirror.keys)
        fetch: Any = options.pop("fetch", Sources(tmp_path).fetch)
        return Alpine(tmp_path / "cache", mirror.url, "v9.9", ("main",), "amd64", keys, fetch,
                      **options)  # type: ignore[arg-type]  # fmt: skip

    return make


# -- signatures


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_signatures_by_openssl(tmp_path: Path, algorithm: str) -> None:
    import hashlib

    key = parse_key(public_key("good"), "x")
    signature = alpines.sign(b"data", "good", tmp_path, algorithm)
    digest = hashlib.new(algorithm, b"data").digest()
    assert key.verify(algorithm, digest, signature)
    assert not key.verify(algorithm, hashlib.new(algorithm, b"datb").digest(), signature)
    assert not key.verify("sha1" if algorithm != "sha1" else "sha256", digest[:20], signature)
    assert not key.verify(algorithm, digest, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not key.verify(algorithm, digest, signature + b"\0")
    assert not key.verify(algorithm, digest, b"\xff" * len(signature))
    assert not parse_key(public_key("other"), "x").verify(algorithm, digest, signature)


def test_keys_in_pem(tmp_path: Path) -> None:
    spki = public_key("good")
    pkcs1 = alpines.openssl("rsa", "-RSAPublicKey_out", stdin=alpines.private_key("good"))
    assert parse_key(spki, "x") == parse_key(pkcs1, "x")
    with pytest.raises(InputError, match="1024 bits is not trusted"):
        parse_key(public_key("weak"), "weak.rsa.pub")
    elliptic = alpines.openssl("ec", "-pubout", stdin=alpines.openssl("ecparam", "-genkey", "-name", "prime256v1"))
    for text in (b"", b"x", spki[:200], spki.replace(b"MII", b"AII"), alpines.private_key("good"), elliptic):
        with pytest.raises(InputError, match="is not an RSA public key"):
            parse_key(text, "odd.rsa.pub")
    with pytest.raises(InputError, match="has no key of Alpine's"):
        find_keys(tmp_path)


# -- the index


def test_versions_are_in_apks_order() -> None:
    ordered = ["1.0_alpha", "1.0_alpha2", "1.0_beta1", "1.0_pre1", "1.0_rc1", "1.0", "1.0-r1", "1.0-r10", "1.0_git2",
               "1.0_p1", "1.0_p1-r1", "1.0a", "1.0b", "1.0.1", "1.2", "1.10", "2"]  # fmt: skip
    assert sorted(sorted(ordered), key=version_key) == ordered
    assert version_key("no version") < version_key("0")


@pytest.mark.parametrize(("text", "version", "fits"), [
    ("a", "1", True), ("a=1.2", "1.2", True), ("a=1.2", "1.2-r1", False), ("a>=1.2", "1.10-r0", True),
    ("a<1.2", "1.2_rc1", True), ("a>1.2", "1.2", False), ("a<=1.2", "1.2", True), ("a~1.2", "1.2.3-r1", True),
    ("a~1.2", "1.20", False), ("a=~1.2", "1.2-r4", True), ("a>=1@edge", "2", True),
])  # fmt: skip
def test_relations(text: str, version: str, fits: bool) -> None:
    (relation,) = relations(text)
    assert relation.name == "a"
    assert relation.accepts(version) is fits


def test_of_several_providers_the_preferred_one_wins() -> None:
    def stanza(name: str, version: str, more: str) -> str:
        return f"C:Q1{'A' * 27}=\nP:{name}\nV:{version}\nS:1\n{more}\n\n"

    text = stanza("b", "1", "p:cmd:x=1\nk:5") + stanza("a", "9", "p:cmd:x=2") + stanza("c", "1", "p:cmd:y so:z=1.5")
    text += stanza("d", "1.0", "") + stanza("d", "1.1", "D:!c a>3")
    index = ApkIndex([("http://m", text.encode())])
    found = index.best(Relation("cmd:x"))
    assert found is not None
    assert found.name == "b"
    assert [str(p) for p in index.versions("d")] == ["d 1.1", "d 1.0"]
    assert index.best(Relation("so:z", ">=", "2")) is None
    assert index.best(Relation("cmd:y", "=", "1")) is None  # it says no version
    assert index.best(Relation("d", "<", "1.1")) == index.versions("d")[1]
    assert index.versions("d")[0].depends[0] == Relation("c", forbids=True)


@pytest.mark.parametrize("stanza", [
    "P:x\nV:1\nS:1\n", "C:Q1AAAA\nP:x\nV:1\nS:1\n", f"C:Q1{'A' * 27}=\nP:../x\nV:1\nS:1\n",
    f"C:Q1{'A' * 27}=\nP:x\nV:../1\nS:1\n", f"C:Q1{'A' * 27}=\nP:x\nV:1\nS:-1\n", "nonsense\n",
])  # fmt: skip
def test_a_damaged_entry_is_refused(stanza: str) -> None:
    with pytest.raises(ImageError, match="damaged entry"):
        ApkIndex([("http://m", stanza.encode())])


def test_dependencies_are_followed_through_libraries(alpine: Make) -> None:
    found = alpine()
    assert [p.name for p in found.closure(["tool"])] == ["tool", "tool-libs", "musl", "deep"]
    assert [p.name for p in found.closure(["cmd:tool"], ["deep"])] == ["tool", "tool-libs", "musl"]
    assert [p.name for p in found.closure(["pc:tool", "/bin/sh"])] == ["tool-libs", "busybox", "deep"]
    with pytest.raises(InputError, match="no package 'tol'") as caught:
        found.closure(["tol"])
    assert caught.value.hint == "did you mean 'tool'?"


def test_lists_from_before_will_do_when_the_mirror_is_down(alpine: Make) -> None:
    def down(url: str) -> None:
        raise NetworkError(f"{url}: nobody is there")

    said: list[str] = []
    alpine().index()
    assert alpine(say=said.append, fetch=down).index().versions("tool")
    assert not said
    later = datetime.now(UTC) + timedelta(hours=7)
    assert alpine(say=said.append, now=lambda: later, fetch=down).index().versions("tool")
    assert "using the package lists from before" in said[-1]
    with pytest.raises(NetworkError):
        alpine(fetch=down).renew()


# -- packages


def test_a_package_is_checked_and_unpacked(alpine: Make, mirror: alpines.Repository, tmp_path: Path) -> None:
    found = alpine()
    packages = found.closure(["tool"])
    files = found.fetch(packages)
    tool = next(p for p in packages if p.name == "tool")
    nodes = found.unpack(tool, files["tool"], tmp_path / "spool")
    assert set(nodes) == {"usr", "usr/bin/tool", "bin/other"}
    assert read_all(nodes["bin/other"].source, 100) == b"#!/bin/sh"
    assert (nodes["usr/bin/tool"].mode, nodes["usr"].kind) == (0o755, Kind.DIRECTORY)
    before = len(mirror.asked)
    found.fetch(packages)
    assert len(mirror.asked) == before
    files["deep"].write_bytes(b"damaged in the cache")
    found.fetch(packages)
    assert [path.rpartition("/")[2] for path in mirror.asked[before:]] == ["deep-1.0-r0.apk"]


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def members(path: Path) -> list[int]:
    """Where the gzip members of a package start."""
    data = path.read_bytes()
    return [n for n in range(len(data)) if data[n : n + 4] == b"\x1f\x8b\x08\0"]


def test_files_that_are_not_what_was_signed(alpine: Make, mirror: alpines.Repository) -> None:
    path = next(mirror.folder.glob("deep-*.apk"))
    good = path.read_bytes()
    _, control, data = members(path)
    for at, message in ((data + 30, "its files have the digest"), (control + 20, r"damaged|checksum"), (0, "damaged"),
                        (len(good) - 1, "its files have the digest")):  # fmt: skip
        path.write_bytes(good)
        _flip(path, at)
        with pytest.raises(ImageError, match=message):
            alpine().fetch(alpine().closure(["deep"]))
    path.write_bytes(good[: control + 5])
    with pytest.raises(ImageError, match="cut short"):
        alpine().fetch(alpine().closure(["deep"]))
    path.write_bytes(good + b"more")
    with pytest.raises(ImageError, match="larger than the"):
        alpine().fetch(alpine().closure(["deep"]))


def test_metadata_that_lies(alpine: Make, mirror: alpines.Repository) -> None:
    mirror.add("deep", [member("x", b"x")], datahash="0" * 64)
    mirror.write()
    with pytest.raises(ImageError, match=f"its metadata says {'0' * 64}"):
        alpine().fetch(alpine().closure(["deep"]))
    mirror.add("deep", [member("x", b"x")], info={"pkgname": "other"})
    mirror.write()
    with pytest.raises(ImageError, match=r"it is other 1\.0-r0, and the index says deep 1\.0-r0"):
        alpine().fetch(_renewed(alpine).closure(["deep"]))
    stanza = mirror.stanzas["deep"]
    mirror.add("deep", [member("x", b"y")])
    mirror.stanzas["deep"] = stanza  # the file is another one than the index lists
    mirror.write()
    with pytest.raises(ImageError, match=r"checksum Q1\S+, and the index says Q1|larger than"):
        alpine().fetch(_renewed(alpine).closure(["deep"]))


def _renewed(alpine: Make) -> Alpine:
    found = alpine()
    found.renew()
    return found


def test_indexes_and_packages_by_others_are_refused(alpine: Make, mirror: alpines.Repository) -> None:
    mirror.write(key="stranger")
    with pytest.raises(ImageError, match=r"is signed by stranger\.rsa\.pub, and trusted are good\.rsa\.pub"):
        alpine().index()
    index = mirror.folder / "APKINDEX.tar.gz"
    mirror.write(algorithm="sha256")
    assert alpine().index().versions("tool")
    data = index.read_bytes()
    start = members(index)[1]
    index.write_bytes(data[start:])
    with pytest.raises(ImageError, match="is not signed"):
        alpine().renew()
    index.write_bytes(data[:start] + alpines.packed(tar_of(member("APKINDEX", b""))))
    with pytest.raises(ImageError, match="is not over what it holds"):
        alpine().renew()
    mirror.key = "stranger"
    mirror.add("deep", [member("x", b"x")])
    mirror.write(key="good")
    with pytest.raises(ImageError, match=r"deep-1\.0-r0\.apk is signed by stranger"):
        alpine().fetch(_renewed(alpine).closure(["deep"]))


def test_what_grows_without_end_is_stopped(alpine: Make, mirror: alpines.Repository, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    bomb = gzip.compress(bytes(4 << 20))
    with pytest.raises(ImageError, match="larger than"):
        apk.read_index(bomb, {}, "x")
    path = mirror.add("big", [member("zeros", bytes(3 << 20))])
    with pytest.raises(ImageError, match="unpacks to more than"):
        apk.unpack(path, tmp_path / "spool", limit=1 << 20)
    assert (tmp_path / "spool").stat().st_size <= 1 << 20
    monkeypatch.setattr("linuxkit.packages.apkindex.MAX_PACKAGES", 2)
    with pytest.raises(ImageError, match="more than 2 packages"):
        alpine().index()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b"])
def test_names_that_leave_the_root_are_refused(mirror: alpines.Repository, tmp_path: Path, name: str) -> None:
    path = mirror.add("bad", [member(name, b"x")])
    with pytest.raises(ImageError, match="leaves the package's root"):
        apk.unpack(path, tmp_path / "spool")


def test_where_mirror_and_branch_come_from(tmp_path: Path) -> None:
    assert find_mirror("http://host/alpine/") == "http://host/alpine"
    (tmp_path / "repositories").write_text("# comment\n/media/x\n@edge http://a/alpine/edge/main\n")
    assert find_mirror("", tmp_path) == "http://a/alpine"
    with pytest.raises(HostError, match="nothing says where a mirror is"):
        find_mirror("", tmp_path / "none")
    with pytest.raises(InputError, match="is not the URL"):
        find_mirror("host/alpine")
    assert check_branch("v3.22") == "v3.22"
    with pytest.raises(InputError, match="is not a branch"):
        check_branch("../x")


# -- recipes

RECIPE = """\
image: tool
org: 127.0.0.1:{port}/x
arches: [amd64]
alpine:
  branch: v9.9
  packages: [tool]
  keep: [usr/bin/tool]
"""


def pkg(git: Git, mirror: alpines.Repository, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return git.pkg(*words, "--alpine-mirror", mirror.url, "--alpine-keys", str(mirror.keys), status=status)


def recipe(mirror: alpines.Repository, text: str = RECIPE) -> str:
    """Its registry is the mirror's server, which has no images."""
    return text.format(port=mirror.server.server_address[1])


def test_a_recipe_with_files_of_alpine(repository: Git, mirror: alpines.Repository) -> None:
    repository.put({"tool/build.yml": recipe(mirror)})
    done = pkg(repository, mirror, "build", "tool")
    made = image(repository, done.stdout.partition("@")[0])
    found = files(repository, made)
    assert set(found) == {"usr/bin/tool", LD, "usr/lib/libtool.so.1", "usr/lib/libdeep.so.3", "lib/apk/db/installed"}
    labels = made.config.labels
    assert labels["org.linuxkit.alpine.packages"] == "deep=1.0-r0 musl=1.0-r0 tool=1.0-r1 tool-libs=1.0-r0"
    assert labels["org.linuxkit.alpine.branch"] == "v9.9"
    assert labels["org.opencontainers.image.version"] == "1.0-r1"
    assert b"P:musl\nV:1.0-r0\n" in found["lib/apk/db/installed"]
    assert b"P:busybox" not in found["lib/apk/db/installed"]
    listed = subprocess.run(
        [sys.executable, "-m", "linuxkit", "--cache", str(repository.cache), "sbom", "--format", "spdx",
         done.stdout.partition("@")[0]], capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    names = {p["name"] for p in json.loads(listed.stdout)["packages"]}
    assert {"deep", "musl", "tool", "tool-libs"} <= names


@pytest.mark.parametrize(("old", "new", "message"), [
    ("v9.9", "9.9", "is not a branch of Alpine"), ("[tool]", "[tol]", "did you mean 'tool'?"),
    ("bin/tool", "bin/tol", "no file of the packages is called"),
    ("alpine:", "debian: {{packages: [x]}}\nalpine:", "alpine and debian exclude each other"),
    ("  packages", "  repositories: [../x]\n  packages", "is not a repository"),
    ("  keep", "  keeep: []\n  keep", "did you mean 'keep'?"),
    ("  keep", "  without: [deep]\n  keep", "needs libdeep.so.3, which none of the packages has"),
])  # fmt: skip
def test_mistakes_in_a_recipe(repository: Git, mirror: alpines.Repository, old: str, new: str, message: str) -> None:
    repository.put({"tool/build.yml": recipe(mirror, RECIPE.replace(old, new))})
    status = 1 if "libdeep" in message else 2
    assert message in pkg(repository, mirror, "build", "tool", status=status).stderr


def test_a_lock_holds_what_a_recipe_is_made_of(repository: Git, mirror: alpines.Repository) -> None:
    repository.put({"tool/build.yml": recipe(mirror), "none/build.yml": "image: none\nfiles: []\n"})
    done = pkg(repository, mirror, "lock", "tool", "none")
    assert done.stdout == "tool/build.lock\n"
    assert "none: nothing to lock" in done.stderr
    lock = (repository.root / "tool/build.lock").read_text()
    assert [line.split()[:5] for line in lock.splitlines()[1:]] == [
        ["alpine", "v9.9", "amd64", name, version]
        for name, version in (("deep", "1.0-r0"), ("musl", "1.0-r0"), ("tool", "1.0-r1"), ("tool-libs", "1.0-r0"))
    ]  # fmt: skip
    before = mirror.stanzas["deep"]
    mirror.add("deep", [member("lib/libdeep.so.3", elf_of(soname="libdeep.so.3") + b"new")], "1.1-r0",
               provides="so:libdeep.so.3=3")  # fmt: skip
    mirror.stanzas["deep-old"] = before
    mirror.write()
    repository.put({"tool/more": "x"})  # commits the lock
    built = pkg(repository, mirror, "build", "tool")
    made = image(repository, built.stdout.partition("@")[0])
    assert "deep=1.0-r0" in made.config.labels["org.linuxkit.alpine.packages"]
    assert files(repository, made)["usr/lib/libdeep.so.3"] == elf_of(soname="libdeep.so.3")
    del mirror.stanzas["deep-old"]
    mirror.write()
    for note in repository.cache.rglob("updated"):
        note.unlink()
    gone = pkg(repository, mirror, "build", "--force", "tool", status=1)
    assert "no longer has what the lock names: deep 1.0-r0 (it has 1.1-r0)" in gone.stderr
    (repository.root / "tool/build.lock").write_text(lock.replace("v9.9", "v9.8").replace("deep 1.0-r0", "deep"))
    wrong = pkg(repository, mirror, "build", "tool", status=2)
    assert "not a line of a lock" in wrong.stderr
    assert "it is of alpine v9.8, and the recipe takes alpine v9.9" in wrong.stderr
