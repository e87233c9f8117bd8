"""What strangers send: digits, JSON, text for a terminal, files that are none; and the command line around them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from linuxkit import foreign
from linuxkit.cli.streams import Shown
from linuxkit.cluster.lines import Lines
from linuxkit.config import document
from linuxkit.errors import ImageError, InputError
from linuxkit.hostfiles import _digest
from linuxkit.machine.qmp import Qmp
from linuxkit.oci import document as oci_document
from linuxkit.packages import apk
from linuxkit.packages.apkindex import ApkIndex, version_key
from linuxkit.packages.index import version_key as deb_version_key
from linuxkit.platforms.memory import unpacked_size

pytestmark = pytest.mark.unit
LINUXKIT = [sys.executable, "-m", "linuxkit"]


# -- digits


@pytest.mark.parametrize("text", [
    "", " 1", "1 ", "+1", "-1", "1_0", "0x1", "\u0661", "1\n", "a", "9" * 5000, b"-1", b"\xb9",
])  # fmt: skip
def test_what_is_no_number(text: str | bytes) -> None:
    for base in (8, 10):
        with pytest.raises(ValueError, match=r"number|more than"):
            foreign.number(text, base)
    assert foreign.number_or(text, -7) == -7


def test_numbers_at_and_past_their_bound() -> None:
    assert foreign.number("9223372036854775807") == foreign.MAX_NUMBER
    assert foreign.number(b"fF", 16, most=255) == 255
    assert foreign.number("0" * 900 + "7", 8) == 7
    for text, base, most in (("9223372036854775808", 10, foreign.MAX_NUMBER), ("100", 16, 255), ("8", 8, 9)):
        with pytest.raises(ValueError, match=r"number|more than"):
            foreign.number(text, base, most)


@pytest.mark.parametrize("field", [b"-0000070", b"+0000001", b" 0000001", b"0000_001", b"0x000001"])
def test_a_cpio_header_with_a_sign_ends(tmp_path: Path, field: bytes) -> None:
    """A negative size led back to the same header for ever."""
    head = b"070701" + b"00000000" * 6 + field + b"00000000" * 4 + b"00000002" + b"00000000" + b"x\0"
    (tmp_path / "initrd").write_bytes(head * 100)
    began = time.monotonic()
    assert unpacked_size(tmp_path / "initrd") >= 0
    assert time.monotonic() - began < 5


def test_versions_of_many_digits_are_compared() -> None:
    for key in (version_key, deb_version_key):
        key("1" * 100_000)
        key("1." * 1000 + "2")


# -- JSON


@pytest.mark.parametrize("text", [
    b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" + b"{}," * 600_000 + b"{}]", b'"\\ud800"', b"NaN", b"",
    b'"\xed\xa0\x80"', b"\xff", b"1" * 5000, b'{"a": "\\uDC00x"}',
])  # fmt: skip
def test_json_that_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        foreign.read_json(text)
    with pytest.raises(ImageError, match="not valid JSON"):
        oci_document.decode(text, "x")


def test_json_at_its_bounds() -> None:
    depth = foreign.MAX_JSON_DEPTH
    assert foreign.read_json(b"[" * depth + b"]" * depth)
    with pytest.raises(ValueError, match="too deeply"):
        foreign.read_json(b"[" * (depth + 1) + b"]" * (depth + 1))
    assert len(foreign.read_json(b"[" + b"1," * 9 + b"1]", values=10)) == 10
    with pytest.raises(ValueError, match="more than 10 values"):
        foreign.read_json(b"[" + b"1," * 10 + b"1]", values=10)
    assert foreign.read_json('{"a": "\\ud83d\\ude00 [[[["}') == {"a": "\U0001f600 [[[["}
    assert foreign.read_json(json.dumps(["["] * 5000)) == ["["] * 5000


def test_json_that_swells_does_not() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            oci_document.decode(b'{"manifests":[' + b"{}," * (10 << 20) + b"{}]}", "index")
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_deep_json_of_qemu_is_dropped() -> None:
    qmp = Qmp()
    qmp.feed(b"[" * 100_000 + b"\n" + b'{"QMP": {}}\n')
    assert qmp.ready


# -- other things that swell


def test_aliases_of_a_long_value() -> None:
    value = "x" * (1 << 20)
    text = f"a: &a {value}\nb: [{', '.join(['*a'] * 400)}]\n".encode()
    with pytest.raises(InputError) as caught:
        document.read_document(text, "x.yml")
    assert "counting aliases" in str(caught.value.problems[0])
    assert document.read_document(f"a: &a {value}\nb: [*a, *a, *a]\n".encode(), "x.yml")
    assert document.read_document(b"a: |\n" + b"  line\n" * (2 << 20), "x.yml")  # a long value that stands once


def test_an_apk_index_that_claims_a_sparse_tebibyte() -> None:
    from support.images import member, tar_of

    claimed = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 40)}
    sparse = tar_of(member("APKINDEX", b"x", pax_headers=claimed))
    with pytest.raises(ImageError, match="unsupported type"):
        apk._tar(sparse, "x")
    with pytest.raises(ImageError, match="damaged entry"):
        ApkIndex([("u", b"P:a\nV:1\nC:Q1" + b"A" * 27 + b"=\nS:\xc2\xb2\n")])


# -- text for a terminal

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
EVIL = [
    CLIPBOARD, "\x1b]52;c;ZXZpbA==", "\x9d52;c;ZXZpbA==\x9c", "\x1b[2J", "\x9b2J", "\x1b[8m", "\x1bc", "\x1bP+q\x1b\\",
    "\u202e", "\u2066", "\x85", "\x00", "\x7f", "\u200b", "\ud800", "\u2028", "\x1b", "\x1b[", "\x1b_x\x1b\\",
    "\x1b[31;8m", "\x1b[6n",
]  # fmt: skip
OBEYED = {*map(chr, range(32)), *map(chr, range(127, 160)), *"\u202e\u2066\u200b\u2028\ud800"}


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_a_terminal_obeys_is_shown(evil: str) -> None:
    assert not OBEYED & set(foreign.printable(f"a{evil}b"))
    assert not OBEYED & set(foreign.coloured(f"a{evil}b"))
    assert foreign.printable(f"a{evil}b").startswith("a")
    shown: list[bytes] = []
    lines = Lines(["m"], shown.append)
    lines.take("m", f"a{evil}b\n".encode("utf-8", "surrogatepass"))
    assert not (OBEYED - {"\n"}) & set(b"".join(shown).decode())


def test_what_stays() -> None:
    plain = "Größe 10 €, 文字, \U0001f600"
    assert foreign.printable(plain) == foreign.coloured(plain) == plain
    assert foreign.coloured("\x1b[31mred\x1b[0m\x1b[1;92mx\x1b[m") == "\x1b[31mred\x1b[0m\x1b[1;92mx\x1b[m"
    assert foreign.printable("a\nb\tc", lines=True) == "a\nb\tc"
    assert "\n" not in foreign.printable("a\nb")
    assert len(foreign.printable("x" * 20_000)) == foreign.MAX_SHOWN + 1


def test_escapes_are_found_in_no_time() -> None:
    for text in ("\x1b[" + "0;" * 500_000, "\x1b]" * 500_000, "\x1b[0" * 300_000, "\x9b " * 300_000):
        began = time.process_time()
        foreign.coloured(text)
        assert time.process_time() - began < 5


def test_a_stream_for_people(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", newline="") as out:
        shown = Shown(out)
        shown.write("\rpulling 1\r")
        shown.write(f"name {CLIPBOARD}\rover\n")
        shown.write("\x1b[31merror\x1b[0m\n")
    assert (tmp_path / "out").read_bytes().decode() == "\rpulling 1\rname \ufffdover\n\x1b[31merror\x1b[0m\n"


def test_a_stranger_s_text_reaches_a_terminal_as_text(tmp_path: Path) -> None:
    """The whole command, on a terminal of its own. Without the stream for people the name of a file goes through."""
    name = tmp_path / f"a{CLIPBOARD.replace('/', '')}\x9b8m.yml"
    name.write_text("kernel: [")
    ours, theirs = pty.openpty()
    done = subprocess.run([*LINUXKIT, "check", str(name)], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        said += piece
        if not piece:
            break
    os.close(ours)
    assert done.returncode == 2
    assert b"not valid YAML" in said
    assert b"\x1b]" not in said
    assert "\x9b".encode() not in said


# -- files that are none, streams that are closed


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    assert _digest(tmp_path / "file").size == 1
    for path, said in (("/dev/zero", "a device"), (tmp_path / "pipe", "a pipe")):
        began = time.monotonic()
        with pytest.raises(OSError, match=f"it is {said}"):
            foreign.open_file(path)
        assert time.monotonic() - began < 1
    with pytest.raises(IsADirectoryError):
        foreign.open_file(tmp_path)


@pytest.mark.parametrize(("closed", "status"), [
    ("<&-", 0), (">&-", 1), ("2>&-", 0), ("<&- >&- 2>&-", 1), ("| true", None),
])  # fmt: skip
def test_closed_streams(closed: str, status: int | None) -> None:
    done = subprocess.run(["bash", "-c", f'"$0" -m linuxkit version {closed}', sys.executable], capture_output=True)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    if status is not None:
        assert done.returncode == status
    if closed == ">&-":
        assert done.stderr == b"error: standard output: Bad file descriptor\n"


def test_every_command_can_be_imported() -> None:
    """Names that only the type checker sees are no decorators: `linuxkit kit` once ended in a NameError."""
    from linuxkit.cli.main import COMMANDS

    script = "import importlib\n" + "".join(
        f"importlib.import_module({where.partition(':')[0]!r})\n" for where, _ in COMMANDS.values()
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
