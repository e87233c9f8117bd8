"""docs/limits.md says what the program does; and what a layer may hold, at each bound and just past it."""

from __future__ import annotations

import dataclasses
import importlib
import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from linuxkit.entry import MAX_ID, MAX_MAJOR, MAX_MINOR, MAX_PATH, MAX_TIME
from linuxkit.errors import ImageError
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.tarread import Limits, Row, read_tar
from support.images import member, symlink, tar_of

pytestmark = pytest.mark.unit
PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
_ROW = r"^\| ([^*|]+) \| (\d+)(?: (bytes|KiB|MiB|GiB|TiB))? \| `([\w.]+)` \|$"
ROWS = re.findall(_ROW, PAGE.read_text(), re.MULTILINE)
UNITS = {"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
#: Modules that read foreign bytes: each of their bounds is in the table.
WHOLE = ("foreign", "entry", "oci.document", "config.document", "plan.lock", "places.strict_xml", "packages.apkindex",
         "packages.apk", "platforms.otherfiles", "machine.qmp")  # fmt: skip


def value(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            at: Any = importlib.import_module("linuxkit." + ".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(at, part, None)
            if isinstance(at, type) and dataclasses.is_dataclass(at):  # its default; of an instance what it has
                found = next(field.default for field in dataclasses.fields(at) if field.name == part)
            at = found
        return at
    raise AssertionError(name)


@pytest.mark.parametrize(("what", "number", "unit", "name"), ROWS, ids=[row[3] for row in ROWS])
def test_the_table_says_what_the_program_does(what: str, number: str, unit: str, name: str) -> None:
    assert value(name) == int(number) * UNITS[unit], what


def test_every_row_is_read_and_no_bound_is_missing() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "**" not in line]
    assert len(ROWS) == len(lines) - 1  # the heading
    named = {row[3] for row in ROWS}
    for module in WHOLE:
        bounds = {f"{module}.{n}" for n in vars(importlib.import_module(f"linuxkit.{module}")) if n.startswith("MAX_")}
        assert bounds <= named | {"entry.MAX_SIZE"}
    assert {f"oci.tarread.Limits.{f.name}" for f in dataclasses.fields(Limits)} - {
        f"oci.tarread.Limits.{name}" for name in ("name", "part", "xattr", "xattrs", "strict")} <= named  # fmt: skip


# -- a layer, at its bounds


def rows(archive: bytes, **limits: int) -> list[Row]:
    return read_tar(memoryview(archive), "layer", Limits(**limits))


def both(good: bytes, bad: bytes, said: str, **limits: int) -> None:
    rows(good, **limits)
    with pytest.raises(ImageError, match=said):
        rows(bad, **limits)


def numbered(kind: bytes, **fields: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type = kind
    for name, number in fields.items():
        setattr(info, name, number)
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def test_numbers_of_members() -> None:
    char = tarfile.CHRTYPE
    both(numbered(char, devmajor=MAX_MAJOR), numbered(char, devmajor=MAX_MAJOR + 1), "is a device 4096:0")
    both(numbered(char, devminor=MAX_MINOR), numbered(char, devminor=MAX_MINOR + 1), "is a device 0:1048576")
    both(numbered(b"0", uid=MAX_ID), numbered(b"0", uid=MAX_ID + 1), "more than 32 bits")
    both(numbered(b"0", gid=MAX_ID), numbered(b"0", gid=MAX_ID + 1), "more than 32 bits")
    both(numbered(b"0", mtime=MAX_TIME), numbered(b"0", mtime=MAX_TIME + 1), "seconds from 1970")


def test_names_and_targets() -> None:
    path = "/".join(["d" * 255] * 15)
    both(tar_of(member(path + "/" + "d" * (MAX_PATH - len(path) - 1))),
         tar_of(member(path + "/" + "d" * (MAX_PATH - len(path)))), "too long")  # fmt: skip
    both(tar_of(symlink("l", "t" * MAX_PATH)), tar_of(symlink("l", "t" * (MAX_PATH + 1))), "target")
    both(tar_of(member("a" * 50), member("b" * 50)), tar_of(member("a" * 50), member("b" * 51)),
         "more than 100 bytes", names=100)  # fmt: skip


def test_attributes() -> None:
    def with_one(size: int) -> bytes:
        return tar_of(member("x", pax_headers={"SCHILY.xattr.user.a": "v" * size}))

    both(with_one(64 << 10), with_one((64 << 10) + 1), "wrong size")
    both(with_one(94), with_one(95), "more than 100 bytes", attributes=100)
    many = [{f"SCHILY.xattr.user.{n}": "v" for n in range(count)} for count in (128, 129)]
    both(*(tar_of(member("x", pax_headers=each)) for each in many), "more than 128 extended attributes")


def global_header(records: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=records):
        pass
    return out.getvalue()[: 512 + -(-sum(len(k) + len(v) + 10 for k, v in records.items()) // 512) * 512]


def test_global_headers_do_not_multiply() -> None:
    """A mebibyte of global header was copied for each member; what nobody looks at is not kept."""
    comment = global_header({"comment": "x" * 1_000_000})
    comment = comment[: len(comment) - len(comment) % 512]
    archive = comment + tar_of(*(member(f"f{n}") for n in range(3000)))
    assert len(rows(archive)) == 3000
    held = global_header({"SCHILY.xattr.user.a": "x" * 60_000})
    with pytest.raises(ImageError, match="attributes of more than"):
        rows(held + tar_of(*(member(f"f{n}") for n in range(300))))


def test_members_of_all_layers_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    class Image:
        class Config:
            diff_ids = ("sha256:a", "sha256:b")

        config = Config
        layers = ("one", "two")

    class Layer:
        digest = "sha256:x"

    from linuxkit.entry import Entry, Kind

    cache = LayerCache.__new__(LayerCache)
    monkeypatch.setattr(LayerCache, "prefetch", lambda self, pairs: None)
    monkeypatch.setattr(LayerCache, "entries", lambda self, layer, diff_id: (Entry("a", Kind.FILE),) * 5)
    monkeypatch.setattr(Image, "layers", (Layer, Layer))
    cache._limits = Limits(image=10)
    assert len(cache.image_entries(Image)) == 2  # type: ignore[arg-type]
    cache._limits = Limits(image=9)
    with pytest.raises(ImageError, match="10 members"):
        cache.image_entries(Image)  # type: ignore[arg-type]
