"""A disk over SSH: the host's ssh program, a key made for the occasion, and a script on the other side.

What goes through the connection is one gzip stream of lines, each followed by what it announces:

    data OFFSET COUNT \\n  then COUNT bytes, written at OFFSET
    zero OFFSET COUNT \\n  nothing: the other side writes the zeros by itself
    end 0 0 \\n            so that half a stream is not taken for a whole one

The other side says `at OFFSET` when it has written so far; from there it goes on when the connection was cut.
It needs sh, dd, gzip and sha256sum over there, and nothing that is not in every rescue system. What was written is read
again in the end, and its SHA-256 is the script's answer.
"""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, NetworkError
from linuxkit.places.image import LocalImage

BLOCK = 1 << 20
RUN = 64  # blocks behind one line at most
#: ssh's exit status for failures of its own, such as a connection that is cut.
BROKEN = 255
_SCRIPT = r"""set -eu
export LC_ALL=C
dev={device} want={size} begin={begin}
if grep -q "^$dev" /proc/mounts; then echo "$dev is in use over there" >&2; exit 3; fi
size=$(blockdev --getsize64 "$dev" 2>/dev/null || stat -c %s "$dev")
if [ "$size" -lt "$want" ]; then echo "$dev has $size bytes, and the image $want" >&2; exit 4; fi
put() {{
    dd of="$dev" bs=1M iflag=fullblock,count_bytes oflag=seek_bytes seek="$1" count="$2" conv=notrunc 2>/dev/null
}}
[ "$begin" -gt 0 ] || blkdiscard "$dev" 2>/dev/null || true
if [ "$begin" = 0 ] && [ "$size" -gt "$want" ]; then # what is left of another partition table at the end
    rest=$((size - want)); [ "$rest" -le 1048576 ] || rest=1048576
    put $((size - rest)) "$rest" </dev/zero
fi
gzip -dc | {{
    whole=no
    while read -r what at count; do
        case "$what" in
        data) put "$at" "$count"; echo "at $((at + count))" ;;
        zero) put "$at" "$count" </dev/zero; echo "at $((at + count))" ;;
        end) whole=yes ;;
        *) echo "what came is damaged" >&2; exit 5 ;;
        esac
    done
    [ $whole = yes ] || {{ echo "the stream ended too early" >&2; exit 6; }}
}}
sync
head -c "$want" "$dev" | sha256sum
"""


class CutError(NetworkError):
    """The connection broke. `reached`: so many bytes from the beginning are written."""

    def __init__(self, message: str, reached: int) -> None:
        super().__init__(message, temporary=True)
        self.reached = reached


def make_key(folder: Path) -> str:
    """Make a key pair `folder`/key; its public half, as one line."""
    key = folder / "key"
    tool = host.find_tool("ssh-keygen", why="to reach the machine that writes the disk")
    host.run([tool, "-q", "-t", "ed25519", "-N", "", "-C", "linuxkit", "-f", key], timeout=60)
    return key.with_suffix(".pub").read_text().strip()


@dataclass(frozen=True)
class Ssh:
    """A machine that lets `folder`/key in. Whose host key it is cannot be known before: the first one is kept to."""

    address: str
    folder: Path
    user: str = "root"
    port: int = 22

    def command(self, script: str) -> list[str]:
        """What is run here so that `script` is run there. The user's own configuration has no part in it."""
        program = host.find_tool("ssh", why="to reach the machine that writes the disk")
        known = self.folder / "known_hosts"
        settings = {
            "IdentitiesOnly": "yes", "BatchMode": "yes", "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": known, "GlobalKnownHostsFile": "/dev/null", "ConnectTimeout": 10,
            "ServerAliveInterval": 15, "ServerAliveCountMax": 4, "LogLevel": "ERROR",
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return [str(program), "-F", "/dev/null", *options, "-i", str(self.folder / "key"), "-p", str(self.port),
                f"{self.user}@{self.address}", script]  # fmt: skip

    def answers(self) -> bool:
        """Whether it lets us in by now."""
        return host.run(self.command("true"), timeout=60, check=False).returncode == 0

    def write_disk(self, image: LocalImage, device: str, progress: Callable[[int, int], None], begin: int = 0) -> None:
        """Make `device` over there what the image is.

        Args:
            progress: bytes of the image so far and in all.
            begin: how far it is written already, as CutError tells.

        Raises:
            HostError: the script over there failed, or something else was written than was sent.
            CutError: the connection was cut.
        """
        script = _SCRIPT.format(device=shlex.quote(device), size=image.size, begin=begin)
        done = host.feed(self.command(script), stream(image, progress, begin))
        told = done.stdout.decode(errors="replace").splitlines()
        said = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        if done.returncode == BROKEN:
            written = [int(line[3:]) for line in told if re.fullmatch(r"at [0-9]{1,18}", line)]
            raise CutError(f"the connection to {self.address} was cut: {' '.join(said) or 'no message'}",
                           min(max(written, default=begin), image.size))  # fmt: skip
        if done.returncode:
            raise HostError(f"writing {device} at {self.address} failed: {' '.join(said) or 'no message'}")
        if not told or told[-1].split()[:1] != [image.digest]:
            raise HostError(f"what {self.address} has on {device} is not what was sent", hint="run it again")


def stream(image: LocalImage, progress: Callable[[int, int], None] = lambda done, size: None,
           begin: int = 0) -> Iterator[bytes]:  # fmt: skip
    """What goes through the connection, from `begin` on."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    end = begin
    for start, count in _runs(image):
        at, length = max(start, begin), start + count - max(start, begin)
        if length <= 0:
            continue
        if at > end:
            yield packer.compress(f"zero {end} {at - end}\n".encode())
        yield packer.compress(f"data {at} {length}\n".encode())
        for offset in range(at, at + length, BLOCK):
            yield packer.compress(image.read(offset, min(BLOCK, at + length - offset)))
            progress(min(offset + BLOCK, image.size), image.size)
        end = at + length
    if end < image.size:
        yield packer.compress(f"zero {end} {image.size - end}\n".encode())
    yield packer.compress(b"end 0 0\n") + packer.flush()
    progress(image.size, image.size)


def _runs(image: LocalImage) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not zero, neighbouring blocks together."""
    start = end = 0
    for index, length in image.blocks(BLOCK):
        at = index * BLOCK
        if at != end or at - start >= RUN * BLOCK:
            if end > start:
                yield start, end - start
            start = at
        end = at + length
    if end > start:
        yield start, end - start
