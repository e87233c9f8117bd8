"""Which accelerator QEMU is to use, decided by what can work and not by what exists.

/dev/kvm may exist, open and even create a machine on a host whose processor has no virtualization of its own (nested
without support); a guest then hangs. So KVM needs the processor's flag as well.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import HostError, InputError

#: our names of architectures, as QEMU and `uname -m` have them
ARCHES = {
    "amd64": "x86_64", "x86_64": "x86_64", "x64": "x86_64",
    "arm64": "aarch64", "aarch64": "aarch64",
    "riscv64": "riscv64",
}  # fmt: skip
KVM_GET_API_VERSION = 0xAE00
#: QEMU's multi-threaded TCG sometimes loses a race against a guest that patches its own code, so: one thread
TCG = "tcg,thread=single"


@dataclass(frozen=True, slots=True)
class Host:
    """What matters of this machine."""

    arch: str  # as in ARCHES' values
    system: str  # "linux", "darwin", …
    cpuinfo: str = ""
    kvm: str = ""  # why /dev/kvm cannot be used; empty when it opens and answers
    hvf: bool = False


@dataclass(frozen=True, slots=True)
class Accel:
    """The choice: QEMU's `-accel` value, and why, in words."""

    value: str
    why: str

    @property
    def name(self) -> str:
        return self.value.split(",")[0]


def machine_arch(name: str) -> str:
    """QEMU's name of an architecture.

    Raises:
        InputError: not one that can be run.
    """
    try:
        return ARCHES[name.lower()]
    except KeyError:
        raise InputError(f"unknown architecture {name!r}", hint="use amd64, arm64 or riscv64") from None


def _probe_kvm(device: Path) -> str:
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"there is no {device}"
    except PermissionError:
        return f"{device} is not open to this user (group kvm)"
    except OSError as e:
        return f"{device}: {e.strerror or e}"
    try:
        import fcntl

        return "" if fcntl.ioctl(fd, KVM_GET_API_VERSION, 0) == 12 else f"{device} speaks another version"
    except OSError as e:
        return f"{device}: {e.strerror or e}"
    finally:
        os.close(fd)


def this_host(cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = Path("/dev/kvm")) -> Host:
    """Look at the machine we are on."""
    arch = ARCHES.get(platform.machine().lower(), platform.machine())
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    linux = sys.platform.startswith("linux")
    return Host(
        arch=arch, system=sys.platform, cpuinfo=text, kvm=_probe_kvm(kvm) if linux else "this is not Linux",
        hvf=sys.platform == "darwin",
    )  # fmt: skip


def _cannot(name: str, host: Host, arch: str) -> str:
    """Why an accelerator cannot work for a guest of that architecture; empty when it can."""
    if name == "tcg":
        return ""
    if arch != host.arch:
        return f"the guest is {arch} and this machine is {host.arch}"
    if name == "hvf":
        return "" if host.hvf else "hvf is for macOS"
    if name != "kvm":
        return f"nothing is known of {name}"
    if host.kvm:
        return host.kvm
    if arch == "x86_64":
        flags = next((line for line in host.cpuinfo.splitlines() if line.startswith("flags")), "").split()
        if not {"vmx", "svm"} & set(flags):
            return "/dev/kvm is there, but this processor shows neither vmx nor svm"
    return ""


def choose(wanted: str, host: Host, arch: str) -> Accel:
    """The accelerator for a guest.

    Args:
        wanted: "" to decide; one name with QEMU's options ("tcg,thread=multi"), taken at its word; or several between
            colons ("kvm:tcg"), of which the first that can work is taken.

    Raises:
        HostError: none of what is wanted can work.
    """
    names = wanted.split(":") if wanted else ["kvm" if host.system.startswith("linux") else "hvf", "tcg"]
    reasons: list[str] = []
    for name in names:
        reason = _cannot(name.split(",")[0], host, arch)
        if wanted and len(names) == 1 and arch == host.arch:
            return Accel(TCG if name == "tcg" else name, "as asked")
        if not reason:
            why = reasons[-1] if reasons else "this machine has it" if name != "tcg" else "as asked"
            return Accel(TCG if name == "tcg" else name, why)
        reasons.append(reason)
    raise HostError(f"acceleration {wanted!r} cannot be used: {'; '.join(reasons)}", hint="use --accel tcg, or none")
