"""Every program that the kit compiles, as its image has it: what its ELF headers say to the kernel."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.packages import toolchain
from linuxkit.packages.kit import Kit
from support.debs import unzstd
from support.system import image_cache

pytestmark = pytest.mark.guest
BREAKS = """
#include <string.h>
#include <stdio.h>
__attribute__((noinline)) static void fill(size_t n)
{
    char room[16];
    memset(room, 'A', n);
    puts(room + n - 1);
}
int main(int argc, char **argv)
{
    (void)argv;
    fill(argc > 1 ? 24 : 15);
    puts("went on");
    return 0;
}
"""


def lacking(program: Path) -> list[str]:
    """What readelf finds missing of the four."""
    command = ["readelf", "--wide", "--file-header", "--program-headers", "--dynamic", str(program)]
    plain = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=plain).stdout
    stack = re.search(r"GNU_STACK.*\b(RW[E ])", said)
    return [name for name, there in {
        "position-independent": "DYN (" in said and "INTERP" not in said, "relro": "GNU_RELRO" in said,
        "bound at once": "BIND_NOW" in said or re.search(r"FLAGS_1.*\bNOW\b", said) is not None,
        "stack without code": stack is not None and stack[1] == "RW ",
    }.items() if not there]  # fmt: skip


def test_every_program(tmp_path: Path) -> None:
    store, where = Store(image_cache()), Platform("linux", "amd64")
    kit = Kit(store, image_cache() / "kit")
    compiled = {name: recipe for name in kit.names() if (recipe := kit.recipe(name)).programs}
    found = {}
    for built in kit.ensure(list(compiled), where):
        blob = image_cache() / "blobs/sha256" / built.image.layers[0].digest[7:]
        with tarfile.open(fileobj=io.BytesIO(unzstd(blob.read_bytes()))) as tar:
            for program in compiled[built.name].programs:
                stream = tar.extractfile(program.path)
                assert stream is not None
                path = tmp_path / f"{built.name}-{program.path.replace('/', '_')}"
                path.write_bytes(stream.read())
                found[path.name] = lacking(path)
    assert len(found) > 15
    assert not {name: what for name, what in found.items() if what}


@pytest.mark.parametrize(("architecture", "plain"), [*((a, False) for a in toolchain.TARGETS), ("amd64", True)])
def test_the_flags_do_it_for_each_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str,
                                               plain: bool) -> None:  # fmt: skip
    """And without them the check finds it; and a stack that was written over is noticed, and without them is not."""
    (tmp_path / "a.c").write_text(BREAKS)
    if plain:
        weak = tuple(f for f in toolchain.FLAGS if not re.match(r"-fPIE|-pie|-fstack|-Wl,-z", f))
        assert len(weak) == len(toolchain.FLAGS) - 4
        weak += ("-fno-stack-protector", "-no-pie", "-fno-pie")
        monkeypatch.setattr(toolchain, "FLAGS", weak)
    program = tmp_path / "a"
    toolchain.compile_program(architecture, tmp_path, ["a.c"], [], program, cache=image_cache() / "kit" / "compiler")
    assert (lacking(program) == []) is not plain
    if architecture == "amd64":
        assert subprocess.run([program], capture_output=True).stdout.endswith(b"went on\n")
        done = subprocess.run([program, "more"], capture_output=True)
        assert (done.returncode < 0) is not plain, done
