"""UEFI firmware for QEMU: where this machine has it, and a machine's own copy of the variables it writes.

Packages say what they bring in JSON files (QEMU's docs/interop/firmware.json); where there are none, the usual places
are looked at. Firmware is two files: the code, which is only read, and a template of the variables, which becomes
`uefi-vars.fd` in the state folder and is the machine's from then on: its boot entries and Secure Boot keys.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linuxkit.errors import HostError, InputError
from linuxkit.foreign import read_json

DESCRIPTORS = tuple(Path(p, "qemu/firmware") for p in (
    "/etc", "/usr/local/share", "/usr/share", "/opt/homebrew/share",
))  # fmt: skip
BOARDS = {"x86_64": "pc-q35-9.0", "aarch64": "virt-9.0"}
PACKAGES = {"x86_64": "ovmf", "aarch64": "qemu-efi-aarch64"}
#: By architecture: code and variables, where no descriptor names them.
PLACES = {
    "x86_64": (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("edk2-x86_64-code.fd", "edk2-i386-vars.fd"),
    ),
    "aarch64": (
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"),
        ("edk2-aarch64-code.fd", "edk2-arm-vars.fd"),
    ),
}


@dataclass(frozen=True, slots=True)
class Firmware:
    """Firmware: its code, its variables (None: the code's file holds them, too), both in `format`."""

    code: Path
    variables: Path | None
    format: str = "raw"
    smm: bool = False  # it protects the variables with the system management mode
    enrolled: bool = False  # its variables have Secure Boot keys already


def find(
    arch: str, *, secure: bool = False, given: Path | None = None, qemu: Path | None = None,
    folders: Sequence[Path] | None = None,
) -> Firmware:  # fmt: skip
    """The firmware for an architecture, as QEMU has it.

    Args:
        secure: with Secure Boot; firmware with enrolled keys is preferred then, and else avoided.
        given: --fw, the file with the code.
        qemu: the program, beside which firmware may be.
        folders: of descriptors; the usual ones when not given.

    Raises:
        HostError: there is none; the hint names the package.
        InputError: `given` is not there.
    """
    if given is not None:
        return _given(given, secure=secure and arch == "x86_64")
    described = _described(arch, DESCRIPTORS if folders is None else folders)
    found = [f for f, can_secure in described if can_secure == secure]
    found.sort(key=lambda f: f.enrolled != secure)
    if found:
        return found[0]
    beside = qemu.resolve().parent.parent / "share/qemu" if qemu is not None else Path("/usr/share/qemu")
    for code, variables in () if secure else PLACES.get(arch, ()):
        paths = beside / code, beside / variables  # an absolute one stays what it is
        if all(p.is_file() for p in paths):
            return Firmware(*paths)
    what = "UEFI firmware with Secure Boot" if secure else "UEFI firmware"
    package = PACKAGES.get(arch, "")
    hint = f"on Debian: apt-get install {package}; or give --fw FILE" if package else "give --fw FILE"
    raise HostError(f"{what} for {arch} is needed and was not found", hint=hint)


def _given(code: Path, *, secure: bool) -> Firmware:
    if not code.is_file():
        raise InputError(f"--fw {code}: there is no such file", hint="leave --fw out to have it looked for")
    name = code.name
    plain = name.replace(".secboot", "").replace(".ms", "").replace(".snakeoil", "")
    for candidate in (name, plain):
        for old, new in (("CODE", "VARS"), ("code", "vars")):
            path = code.with_name(candidate.replace(old, new))
            if path != code and old in candidate and path.is_file():
                return Firmware(code, path, smm=secure)
    return Firmware(code, None, smm=secure)


def _described(arch: str, folders: Sequence[Path]) -> Iterator[tuple[Firmware, bool]]:
    """Firmware that descriptors name and that is there; whether it has Secure Boot. By name, earlier folders first."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in folder.glob("*.json"):
            files.setdefault(path.name, path)
    for name in sorted(files):
        try:
            found = _read(read_json(files[name].read_bytes()), arch)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # an empty file hides one of the same name; another kind of firmware
        if found is not None:
            yield found


def _read(value: Any, arch: str) -> tuple[Firmware, bool] | None:
    machines = [m for target in value["targets"] if target["architecture"] == arch for m in target["machines"]]
    if "uefi" not in value["interface-types"] or not any(fnmatch.fnmatch(BOARDS[arch], m) for m in machines):
        return None
    mapping = value["mapping"]
    if mapping["device"] != "flash" or mapping.get("mode", "split") != "split":
        return None
    code, template = mapping["executable"], mapping["nvram-template"]
    features = value["features"]
    paths = Path(code["filename"]), Path(template["filename"])
    if code["format"] != template["format"] or not all(p.is_file() for p in paths):
        return None
    if any(f in features for f in ("amd-sev-es", "amd-sev-snp", "intel-tdx")):
        return None
    made = Firmware(*paths, code["format"], "requires-smm" in features, "enrolled-keys" in features)
    return made, "secure-boot" in features


def claim(firmware: Firmware, state: Path) -> Firmware:
    """The firmware with the machine's own variables, in its state folder.

    Raises:
        HostError: they cannot be written.
    """
    template = firmware.variables or firmware.code
    own = state / ("uefi-vars.fd" if firmware.variables else "uefi.fd")
    try:
        if not own.is_file() or own.stat().st_size != template.stat().st_size:  # of another firmware
            partial = own.with_name(own.name + ".partial")
            shutil.copyfile(template, partial)
            partial.replace(own)
    except OSError as e:
        raise HostError(f"{own} cannot be written: {e.strerror or e}", hint="choose another --state") from e
    if firmware.variables is None:
        return Firmware(own, None, firmware.format, firmware.smm, firmware.enrolled)
    return Firmware(firmware.code, own, firmware.format, firmware.smm, firmware.enrolled)
