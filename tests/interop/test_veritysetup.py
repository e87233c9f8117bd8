"""dm-verity hash trees, checked by veritysetup."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from linuxkit.encode import verity
from linuxkit.encode.pieces import literal
from linuxkit.outputs.pieces import put

pytestmark = pytest.mark.interop

SALT, UUID = bytes(range(32)), bytes(range(16))
SIZES = [1, 2, 128, 129, 128 * 128 + 1]


def content(blocks: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") * 1024 for n in range(blocks))


def verify(path: Path, made: verity.Verity, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["veritysetup", "verify", path, path, made.root_hash.hex(), *options]
    return subprocess.run(command, capture_output=True, text=True)


def image(path: Path, blocks: int, *, superblock: bool) -> tuple[verity.Verity, list[str]]:
    pieces = [literal(content(blocks))]
    made = verity.tree(pieces, SALT)
    between = [literal(made.superblock(UUID))] if superblock else []
    with open(path, "wb") as out:
        put([*pieces, *between, *made.pieces], out)
    options = [f"--hash-offset={blocks * 4096}"]
    if not superblock:
        options += ["--no-superblock", "--format=1", "--hash=sha256", f"--salt={SALT.hex()}", f"--data-blocks={blocks}",
                    "--data-block-size=4096", "--hash-block-size=4096"]  # fmt: skip
    return made, options


@pytest.mark.parametrize("superblock", [False, True])
@pytest.mark.parametrize("blocks", SIZES)
def test_veritysetup_takes_it_and_refuses_a_changed_byte(tmp_path, blocks, superblock):
    path = tmp_path / "image"
    made, options = image(path, blocks, superblock=superblock)
    done = verify(path, made, *options)
    assert done.returncode == 0, done.stderr
    size = path.stat().st_size
    spots = [0, blocks * 4096 - 1, size - 4096]  # first and last byte of the data, last block of the tree
    for spot in spots:
        with open(path, "r+b") as out:
            out.seek(spot)
            before = out.read(1)
            out.seek(spot)
            out.write(bytes([before[0] ^ 1]))
        if spot < blocks * 4096 or made.levels:
            assert verify(path, made, *options).returncode != 0, spot
        with open(path, "r+b") as out:
            out.seek(spot)
            out.write(before)
    assert verify(path, made, *options).returncode == 0
