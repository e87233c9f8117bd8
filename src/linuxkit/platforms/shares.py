"""Folders of this machine that the guest can mount, and its TPM: what QEMU needs other programs for.

    mount -t virtiofs TAG /mnt                                         --virtiofs, served by virtiofsd
    mount -t 9p -o trans=virtio,version=9p2000.L TAG /mnt              --9p, served by QEMU itself
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, InputError
from linuxkit.machine.helper import Helper

#: Where distributions have virtiofsd, which is not in $PATH.
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/kvm/virtiofsd")
#: A virtiofs device has room for so many bytes of its tag (virtio 1.2, 5.11.4); 9p's is as long.
MAX_TAG = 36


@dataclass(frozen=True, slots=True)
class Share:
    """A folder and the name by which the guest mounts it."""

    folder: Path
    tag: str


def parse_shares(texts: Sequence[str], kind: str) -> tuple[Share, ...]:
    """`[TAG=]FOLDER`; without a tag it is the kind with the folder's number: virtiofs0, virtiofs1, …

    Args:
        kind: virtiofs or 9p, the option's name.

    Raises:
        InputError: the folder is not there, or the tag is none.
    """
    shares: list[Share] = []
    for number, text in enumerate(texts):
        tag, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            tag, folder = f"{kind}{number}", text
        path = Path(folder).absolute()
        if not path.is_dir():
            raise InputError(f"--{kind} {text!r}: there is no folder {folder}", hint="use FOLDER or TAG=FOLDER")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", tag) or len(tag) > MAX_TAG:
            raise InputError(f"--{kind} {text!r}: a tag is of letters, digits, - _ and ., {MAX_TAG} at most")
        if any(share.tag == tag for share in shares):
            raise InputError(f"--{kind}: the tag {tag} is there twice", hint="give each folder its own: TAG=FOLDER")
        shares.append(Share(path, tag))
    return tuple(shares)


def virtiofsd(shares: Sequence[Share], given: Path | None = None) -> tuple[Helper, ...]:
    """What serves folders to the guest.

    Args:
        given: --virtiofsd, the program; else it is looked for.

    Raises:
        HostError: there is no virtiofsd.
        InputError: a folder's name has a comma, which virtiofsd can't be told.
    """
    if not shares:
        return ()
    program = given or _find_virtiofsd()
    if not program.is_file():
        raise HostError(f"--virtiofsd {program}: there is no such program", hint="leave it out to have it looked for")
    helpers = []
    for number, share in enumerate(shares):
        if "," in str(share.folder):
            raise InputError(f"--virtiofs {share.folder}: virtiofsd takes no comma", hint="share the folder above it")

        def command(fd: int, folder: Path = share.folder) -> list[str]:
            return [str(program), f"--fd={fd}", "-o", f"source={folder}"]

        helpers.append(Helper(f"virtiofs{number}", command, listens=True))
    return tuple(helpers)


def _find_virtiofsd() -> Path:
    for place in (*VIRTIOFSD, shutil.which("virtiofsd") or ""):
        if place and Path(place).is_file():
            return Path(place)
    raise HostError("virtiofsd is needed for --virtiofs and is not installed",
                    hint="on Debian: apt-get install virtiofsd (before Debian 13: qemu-system-common)")  # fmt: skip


def swtpm(state: Path) -> Helper:
    """What is the guest's TPM 2.0, with its state in the folder `tpm` of the machine's state folder.

    Raises:
        HostError: there is no swtpm, or the folder can't be made.
    """
    program = host.find_tool("swtpm", why="for --tpm")
    folder = (state / "tpm").absolute()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        raise HostError(f"{folder} cannot be made: {e.strerror or e}", hint="choose another --state") from e

    def command(fd: int) -> list[str]:
        place = str(folder)
        if "," in place:
            raise InputError(f"{place}: swtpm takes no comma", hint="choose another --state")
        control = f"type=unixio,clientfd={fd}"
        return [str(program), "socket", "--tpm2", "--tpmstate", f"dir={place}", "--ctrl", control, "--terminate"]

    return Helper("tpm", command)
