from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.encode import elf
from linuxkit.entry import Bytes, Extent
from support.debs import elf_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("big", [True, False])
def test_what_a_program_asks_for(wide: bool, big: bool, tmp_path: object) -> None:
    data = elf_of(interpreter="/lib64/ld.so.2", needed=["libc.so.6", "libm.so.6"], runpath="$ORIGIN/../x:/opt",
                  wide=wide, big=big, machine=183)  # fmt: skip
    found = elf.read(Bytes(data))
    assert found == elf.Elf(183, "/lib64/ld.so.2", ("libc.so.6", "libm.so.6"), "", ("$ORIGIN/../x", "/opt"))


def test_a_library_has_a_name_and_no_interpreter() -> None:
    found = elf.read(Bytes(elf_of(soname="libx.so.1")))
    assert found is not None
    assert (found.soname, found.interpreter, found.needed) == ("libx.so.1", "", ())


def test_an_extent_is_read_at_its_place(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "f"
    data = elf_of(needed=["libc.so.6"])
    path.write_bytes(b"x" * 777 + data + b"y" * 99)
    found = elf.read(Extent(str(path), 777, len(data)))
    assert found is not None
    assert found.needed == ("libc.so.6",)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n" + b"x" * 100, b"\x7fELF"])
def test_other_files_are_not_elf(data: bytes) -> None:
    assert elf.read(Bytes(data)) is None


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_an_elf_error_or_read_but_never_something_else(data: st.DataObject) -> None:
    good = bytearray(elf_of(interpreter="/lib/ld.so", needed=["liba.so", "libb.so"], runpath="/x"))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        elf.read(Bytes(bytes(good[:cut] if data.draw(st.booleans()) else good)))
    except elf.ElfError:
        pass
