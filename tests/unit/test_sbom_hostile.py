"""Package databases and attestations of people who mean harm: bounded, never a traceback."""

from __future__ import annotations

import itertools
import json
import sqlite3
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.oci.store import Store
from linuxkit.sbom import apk, copyright, dpkg, layers, model, rpm
from linuxkit.sbom.layers import inventory
from linuxkit.sbom.licences import licence
from linuxkit.sbom.make import document, encode
from linuxkit.sbom.model import Database, Package
from support.builds import linuxkit
from support.databases import APK, BASH_RPM, DPKG, attest, content_of, image_with, rpm_header, rpmdb
from support.images import hardlink, make_image, member, tar_of

pytestmark = pytest.mark.unit
BIG = 4 << 20
TEXTS = {
    "nothing": b"", "newlines": b"\n" * BIG, "one endless line": b"Package: " + b"a" * BIG,
    "zeros": bytes(BIG), "many empty records": b"a\n\n" * (BIG // 3), "many lines": b"P:a\n" * (BIG // 4),
    "not UTF-8": b"Package: a\xff b\xfe\nVersion: \xc3\x28\n\nP:\xff c\nV:1\n",
    "no value": b"Package:\nVersion:\n\nP:\nV:\n",
    "spaces": b"Package:" + b" " * BIG + b"\nP:" + b" " * BIG, "colons": b":" * BIG, "binary": bytes(range(256)) * 1000,
    "control characters": b"Package: a\x1b[2J\nVersion: 1\n\nP:a\x07\nV:1\n",
    "a name of a megabyte": b"Package: " + b"n" * (1 << 20) + b"\nVersion: 1\n\nP:" + b"n" * (1 << 20) + b"\nV:1\n",
}  # fmt: skip


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_text_databases(data: bytes) -> None:
    start = time.monotonic()
    for parse in (dpkg.parse, apk.parse):
        assert parse(data).packages == ()
    copyright.parse(data)
    assert time.monotonic() - start < 10


def test_more_packages_than_any_system_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dpkg, apk, rpm):
        monkeypatch.setattr(module, "MAX_PACKAGES", 2)
    many = [b"".join(b"Package: p%d\nVersion: 1\n\n" % n for n in range(9)),
            b"".join(b"P:p%d\nV:1\n\n" % n for n in range(9))]  # fmt: skip
    found = [dpkg.parse(many[0]), apk.parse(many[1]),
             rpm.parse(rpmdb(*(rpm_header(name=f"p{n}", version="1", release="1") for n in range(9))))]  # fmt: skip
    for database in found:
        assert len(database.packages) == 2
        assert "more than 2 packages" in database.notes[0]


def header(count: int, length: int, *entries: tuple[int, int, int, int], store: bytes = b"") -> bytes:
    return struct.pack(">II", count, length) + b"".join(struct.pack(">IIII", *e) for e in entries) + store


@pytest.mark.parametrize("blob", [
    b"", b"\0" * 7, b"\0" * 8, b"\xff" * 64, header(0xFFFFFFFF, 0xFFFFFFFF), header(1, 4, (1000, 6, 0, 1)),
    header(2, 4, (1000, 6, 99, 1), (1001, 6, 0xFFFFFFFF, 1), store=b"ab\0\0"),
    header(2, 4, (1000, 4, 3, 1), (1001, 6, 0, 1), store=b"abcd"),
    header(1, 0, (1000, 6, 0, 0)), header(60_000, 0), header(2, 4, (1000, 6, 0, 1), (1001, 6, 0, 1), store=b"a b\0"),
])  # fmt: skip
def test_rpm_headers(blob: bytes) -> None:
    assert rpm.header(blob) is None


def with_pages_shared() -> bytes:
    """A database in which interior pages all name the same leaves: few bytes, rows without end."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA page_size = 512")
    connection.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)")
    connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(BASH_RPM,)] * 2000)
    connection.commit()
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'Packages'").fetchone()
    data = bytearray(connection.serialize())
    connection.close()

    def cells(page: int) -> list[int]:
        at = (page - 1) * 512
        assert data[at] == 5, "an interior page"
        return [at + int.from_bytes(data[at + 12 + 2 * n : at + 14 + 2 * n], "big")
                for n in range(int.from_bytes(data[at + 3 : at + 5], "big"))]  # fmt: skip

    children = [int.from_bytes(data[c : c + 4], "big") for c in cells(root)]
    leaf = int.from_bytes(data[cells(children[0])[0] :][:4], "big")
    chain = [root, *children[:8], leaf]  # each page names the next one in all its cells
    for page, following in itertools.pairwise(chain):
        for cell in cells(page):
            data[cell : cell + 4] = following.to_bytes(4, "big")
    return bytes(data)


def databases() -> dict[str, bytes]:
    good = rpmdb(BASH_RPM)
    generated = rpmdb(schema="CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,"
                             "blob BLOB GENERATED ALWAYS AS (zeroblob(1000000000)))")  # fmt: skip
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIEW Packages AS WITH RECURSIVE n(blob) AS (SELECT x'00' UNION ALL SELECT blob FROM n) "
                       "SELECT 1 AS hnum, blob FROM n")  # fmt: skip
    view = connection.serialize()
    connection.close()
    loop = bytearray(rpmdb(*[BASH_RPM] * 200))
    loop[4096:8192] = b"\5" + loop[4097:4104] + b"\0\0\0\2" + bytes(4084)
    return {
        "empty": b"", "text": b"SQLite format 3\0", "cut": good[:5000], "a page of noise": good[:4096] + b"\xa5" * 4096,
        "page size": good[:16] + b"\0\3" + good[18:], "view": view, "computed column": generated, "loop": bytes(loop),
        "no such table": _other_table(),
    }  # fmt: skip


def _other_table() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE Other (hnum INTEGER PRIMARY KEY, blob BLOB)")
    data = connection.serialize()
    connection.close()
    return data


@pytest.mark.parametrize("name", databases())
def test_sqlite_files(name: str) -> None:
    start = time.monotonic()
    found = rpm.parse(databases()[name])
    assert found.packages == ()
    assert found.notes
    assert time.monotonic() - start < 10


def test_a_small_file_with_endless_rows_is_given_up() -> None:
    data = with_pages_shared()
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    (rows,) = connection.execute("SELECT count(*) FROM (SELECT blob FROM Packages LIMIT 100000)").fetchone()
    connection.close()
    assert rows == 100_000, "the trick works"
    found = rpm.parse(data)
    assert len(found.packages) * len(BASH_RPM) <= len(data) + len(BASH_RPM)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2000))
def test_anything_at_all(noise: bytes, at: int) -> None:
    for base, parse in ((DPKG, dpkg.parse), (APK, apk.parse), (rpmdb(BASH_RPM), rpm.parse)):
        found: Database = parse(base[:at] + noise + base[at + len(noise) :])  # type: ignore[operator]
        for package in found.packages:
            assert isinstance(package, Package)
            assert model.usable(package.name, package.version)
    rpm.header(noise)
    rpm.header(BASH_RPM[:at] + noise)
    made = licence(noise.decode("latin-1"))
    assert all(name in made.expression for name, _ in made.texts)


# -- images


def test_databases_that_are_too_large_are_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_TEXT", [(p, parse, 100) for p, parse, _ in layers._TEXT])
    image = image_with(store, "docker.io/t/a:1", {"var/lib/dpkg/status": DPKG, "lib/apk/db/installed": APK[:100]})
    found = inventory(image, content_of(store, tmp_path))
    assert found.notes[0].startswith(f"/var/lib/dpkg/status: {len(DPKG)} bytes are more than the 100 that are read")


def test_a_layer_of_nothing_but_databases_is_given_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MAX_FILES", 5)
    files = {f"var/lib/dpkg/status.d/p{n}": b"Package: p%d\nVersion: 1\n" % n for n in range(9)}
    image = image_with(store, "docker.io/t/a:1", files)
    found = inventory(image, content_of(store, tmp_path))
    assert len(found.packages) == 5
    assert "more databases than any honest one" in found.notes[0]


def test_a_hard_link_to_something_else(store: Store, tmp_path: Path) -> None:
    image = make_image(store, "docker.io/t/a:1", tar_of(
        member("etc/passwd", b"root:x:0:0"), hardlink("var/lib/dpkg/status", "etc/passwd"),
        hardlink("lib/apk/db/installed", "gone"),
    ))  # fmt: skip
    found = inventory(image, content_of(store, tmp_path))
    assert found.packages == ()
    assert found.notes == ("/lib/apk/db/installed: it is no file of its own layer: not read",
                           "/var/lib/dpkg/status: 1 records without a usable name and version")  # fmt: skip


def test_a_damaged_record_in_the_cache_is_made_anew(store: Store, tmp_path: Path) -> None:
    image = image_with(store, "docker.io/t/a:1", {"var/lib/dpkg/status": DPKG})
    content = content_of(store, tmp_path)
    good = inventory(image, content)
    (path,) = (tmp_path / "derived" / "sbom").glob("*.json")
    for bad in (b"[" * path.stat().st_size, b"{" + b" " * (path.stat().st_size - 2) + b"}"):
        path.write_bytes(bad)
        assert inventory(image, content) == good


SPDX = "https://spdx.dev/Document"
ITEM: dict[str, Any] = {"SPDXID": "SPDXRef-a", "name": "a"}
DOCUMENTS: dict[str, Any] = {
    "lists that are none": {"packages": 42, "files": "x", "relationships": {"a": 1}},
    "items that are none": {"packages": [42, None, [], "x", {}], "files": [{"SPDXID": 1}], "annotations": [3]},
    "identifiers": {"packages": [{"SPDXID": "SPDXRef-../ x", "name": "a"}, ITEM, ITEM, {"SPDXID": 5, "name": "b"}]},
    "relationships": {"packages": [ITEM], "relationships": [
        {"spdxElementId": "SPDXRef-nowhere", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-a"},
        {"spdxElementId": 1, "relationshipType": [], "relatedSpdxElement": {}}]},
    "references": {"packages": [ITEM | {"externalRefs": [1, {"referenceType": "purl", "referenceLocator": [1]}]},
                                {"SPDXID": "SPDXRef-b", "name": "b", "externalRefs": "x"}]},
    "licences": {"packages": [ITEM | {"licenseDeclared": ["x"]}], "hasExtractedLicensingInfos": [
        {"licenseId": "x"}, {"licenseId": "LicenseRef-a", "extractedText": 1}]},
    "surrogates": {"packages": [ITEM | {"comment": "\ud800"}]},
    "a predicate that is none": 42,
}  # fmt: skip


@pytest.mark.parametrize("predicate", DOCUMENTS.values(), ids=DOCUMENTS)
def test_attested_documents(store: Store, tmp_path: Path, predicate: Any) -> None:
    image = attest(store, image_with(store, "docker.io/t/a:1", {"a": b"a"}), (SPDX, predicate))
    content = content_of(store, tmp_path)
    for kind in ("spdx", "cyclonedx"):
        made = document([("x", image), ("y", image)], content, format=kind)
        assert json.loads(encode(made))["serialNumber" if kind == "cyclonedx" else "spdxVersion"]
    made = document([("x", image)], content)
    known = {"SPDXRef-DOCUMENT", *(item["SPDXID"] for item in (*made["packages"], *made.get("files", ())))}
    for relation in made["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= known
    assert len(known) == 1 + len(made["packages"]) + len(made.get("files", ()))


@pytest.mark.parametrize("statement", [
    b"", b"{}", b"[]", b"\xff", b'{"predicate": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"predicate": {"a": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}}", b'{"predicate": {"packages": NaN}}',
])  # fmt: skip
def test_statements(store: Store, tmp_path: Path, statement: bytes) -> None:
    image = attest(store, image_with(store, "docker.io/t/a:1", {"var/lib/dpkg/status": DPKG}), (SPDX, statement))
    found = inventory(image, content_of(store, tmp_path))
    assert len(found.packages) == 2, "the rest of the inventory is there all the same"
    assert found.notes or statement == b"{}"


def test_a_statement_that_is_too_large(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from linuxkit.sbom import attested

    image = attest(store, image_with(store, "docker.io/t/a:1", {"a": b"a"}), (SPDX, {"packages": [ITEM] * 50}))
    for limit in ("MAX_DOCUMENT", "MAX_OBJECTS"):
        with monkeypatch.context() as patch:
            patch.setattr(attested, limit, 10)
            assert len(inventory(image, content_of(store, tmp_path)).notes) == 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_the_stated_memory_is_enough(store: Store, tmp_path: Path) -> None:
    """As docs/sbom.md has it; the limit counts address space, of which a program reserves more than it takes."""
    import resource

    most = (32 << 20) - 1000
    image = image_with(store, "docker.io/t/a:1", {
        "var/lib/dpkg/status": b"a\n\n" * (most // 3), "var/lib/dpkg/status.d/x": b"Package: " + b"\n" * most,
        "var/lib/rpm/rpmdb.sqlite": bytes(40 << 20),
    })  # fmt: skip
    relation = {"spdxElementId": "SPDXRef-a", "relationshipType": "X", "relatedSpdxElement": "NONE"}
    attest(store, image, (SPDX, {"packages": [ITEM], "relationships": [relation] * 100_000}))
    limit = 1 << 30
    done = linuxkit("sbom", "--offline", "--arch", "amd64", "t/a:1", cwd=tmp_path, cache=store.root,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))  # fmt: skip
    made = json.loads(done.stdout)
    assert len(made["relationships"]) > 90_000
    assert len(made["packages"][0]["annotations"]) == 3
