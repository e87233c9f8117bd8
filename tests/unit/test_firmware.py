"""UEFI firmware: which is found, what a machine gets, and how QEMU is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from linuxkit.encode import fat, gpt, pe
from linuxkit.encode.pieces import Piece, literal
from linuxkit.errors import HostError, InputError
from linuxkit.machine.machine import Channels
from linuxkit.outputs.pieces import put
from linuxkit.platforms import accel, bootfiles, firmware, memory, qemu
from linuxkit.platforms.firmware import Firmware
from linuxkit.platforms.prepare import Request, prepare
from support.efi import program
from support.vm import initrd_of

pytestmark = pytest.mark.unit


def describe(folder: Path, name: str, *features: str, arch: str = "x86_64", **changes: object) -> tuple[Path, Path]:
    """A descriptor and the files that it names."""
    folder.mkdir(exist_ok=True)
    code, variables = folder / f"{name}-CODE.fd", folder / f"{name}-VARS.fd"
    code.write_bytes(b"code")
    variables.write_bytes(b"variables")
    machine = {"x86_64": "pc-q35-*", "aarch64": "virt-*"}[arch]
    value = {
        "interface-types": ["uefi"], "features": list(features),
        "mapping": {"device": "flash", "executable": {"filename": str(code), "format": "raw"},
                    "nvram-template": {"filename": str(variables), "format": "raw"}},
        "targets": [{"architecture": arch, "machines": [machine]}],
    } | changes  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(value))
    return code, variables


def test_the_first_that_fits_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    describe(folder, "10-other", arch="aarch64")
    describe(folder, "20-bios", **{"interface-types": ["bios"]})
    describe(folder, "30-secure", "secure-boot", "requires-smm", "enrolled-keys")
    plain = describe(folder, "60-plain")
    describe(folder, "70-plain")
    gone, _ = describe(folder, "50-gone")
    gone.unlink()
    (folder / "40-odd.json").write_text("{not json")
    assert firmware.find("x86_64", folders=[folder]) == Firmware(*plain)


def test_secure_boot_wants_keys_first(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    blank = describe(folder, "30-blank", "secure-boot", "requires-smm")
    enrolled = describe(folder, "40-enrolled", "secure-boot", "requires-smm", "enrolled-keys")
    assert firmware.find("x86_64", secure=True, folders=[folder]) == Firmware(*enrolled, smm=True, enrolled=True)
    (folder / "40-enrolled.json").unlink()
    assert firmware.find("x86_64", secure=True, folders=[folder]) == Firmware(*blank, smm=True)


def test_an_administrators_folder_hides_the_packages(tmp_path: Path) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    describe(system, "50-hidden")
    fallback = describe(system, "60-next")
    own.mkdir()
    (own / "50-hidden.json").write_text("")
    assert firmware.find("x86_64", folders=[own, system]).code == fallback[0]


def test_the_usual_places_without_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "PLACES", {"x86_64": (("code.fd", "vars.fd"),)})
    (tmp_path / "bin").mkdir()
    share = tmp_path / "share/qemu"
    share.mkdir(parents=True)
    program_ = tmp_path / "bin/qemu"
    program_.write_text("")
    with pytest.raises(HostError, match="UEFI firmware for x86_64") as missing:
        firmware.find("x86_64", folders=[], qemu=program_)
    assert "apt-get install ovmf" in missing.value.hint
    with pytest.raises(HostError, match="Secure Boot for aarch64") as missing:
        firmware.find("aarch64", secure=True, folders=[])
    assert "qemu-efi-aarch64" in missing.value.hint
    for name in ("code.fd", "vars.fd"):
        (share / name).write_text(name)
    assert firmware.find("x86_64", folders=[], qemu=program_) == Firmware(share / "code.fd", share / "vars.fd")


def test_a_given_one(tmp_path: Path) -> None:
    code, variables = tmp_path / "X_CODE_4M.secboot.fd", tmp_path / "X_VARS_4M.fd"
    code.write_bytes(b"c")
    assert firmware.find("x86_64", given=code) == Firmware(code, None)
    variables.write_bytes(b"v")
    assert firmware.find("x86_64", given=code) == Firmware(code, variables)
    assert firmware.find("x86_64", given=code, secure=True).smm
    with pytest.raises(InputError, match="no such file"):
        firmware.find("x86_64", given=tmp_path / "none")


def test_a_machine_keeps_its_variables(tmp_path: Path) -> None:
    code, variables = tmp_path / "code", tmp_path / "vars"
    code.write_bytes(b"code and variables")
    variables.write_bytes(b"empty")
    state = tmp_path / "state"
    state.mkdir()
    own = firmware.claim(Firmware(code, variables), state)
    assert own == Firmware(code, state / "uefi-vars.fd")
    (state / "uefi-vars.fd").write_bytes(b"mine!")
    firmware.claim(Firmware(code, variables), state)
    assert (state / "uefi-vars.fd").read_bytes() == b"mine!"
    variables.write_bytes(b"of another size")  # another firmware's
    firmware.claim(Firmware(code, variables), state)
    assert (state / "uefi-vars.fd").read_bytes() == b"of another size"
    both = firmware.claim(Firmware(code, None), state)
    assert both == Firmware(state / "uefi.fd", None) and both.code.read_bytes() == code.read_bytes()


SPEC = qemu.MachineSpec(
    Path("qemu"), accel.Accel("tcg", ""), None, disks=(qemu.Disk(Path("a,b.img")), qemu.Disk(Path("data.img"))),
    firmware=Firmware(Path("c,1.fd"), Path("v.fd")),
)  # fmt: skip


def words(spec: qemu.MachineSpec) -> str:
    return " ".join(qemu.command(spec, Channels(qmp=3, console=4, report=5)))


def test_qemus_command_line() -> None:
    line = words(SPEC)
    assert "-drive if=pflash,unit=0,format=raw,file=c,,1.fd,readonly=on " in line
    assert "-drive if=pflash,unit=1,format=raw,file=v.fd " in line
    assert "drive=disk0,serial=disk0,bootindex=0" in line and "serial=disk1 " in line
    assert "qboot" not in line and "-kernel" not in line and "smm" not in line
    assert "qboot" not in words(replace(SPEC, firmware=None))
    secure = words(replace(SPEC, firmware=Firmware(Path("c"), Path("v"), smm=True)))
    assert "-machine q35,sata=off,smm=on" in secure
    assert "driver=cfi.pflash01,property=secure,value=on" in secure
    assert "unit=1" not in words(replace(SPEC, firmware=Firmware(Path("c"), None)))


def disk(path: Path, name: str = "BOOTX64.EFI", data: bytes | None = None) -> Path:
    esp = fat.volume({f"EFI/BOOT/{name}": [literal(data or program())]}, seed="s", bits=32, hidden=2048)
    with path.open("wb") as out:
        put(gpt.disk([gpt.Partition(esp.pieces, gpt.ESP, "EFI System")], seed="s"), out)
    return path


@pytest.mark.parametrize(("name", "arch"), [("BOOTX64.EFI", "x86_64"), ("BOOTAA64.EFI", "aarch64")])
def test_a_disk_says_what_it_is_for(tmp_path: Path, name: str, arch: str) -> None:
    path = disk(tmp_path / "some.img", name, program({"x86_64": 0x8664, "aarch64": 0xAA64}[arch]))
    assert bootfiles.find(str(path)) == bootfiles.BootFiles(None, None, "", arch, path, uefi=True)


def test_the_memory_for_what_a_program_holds(tmp_path: Path) -> None:
    archive = sparse_cpio(tmp_path / "initrd", 800 << 20)
    initrd = Piece(archive.stat().st_size, str(archive))
    parts = [pe.Section(".cmdline", [literal(b"quiet")]), pe.Section(".initrd", [initrd])]
    made = pe.add_sections(program(), parts)
    uki, image = tmp_path / "x.efi", tmp_path / "x-efi.img"
    esp = fat.volume({"EFI/BOOT/BOOTX64.EFI": made}, seed="s", bits=32, hidden=2048)
    for path, pieces in ((uki, made), (image, gpt.disk([gpt.Partition(esp.pieces, gpt.ESP)], seed="s"))):
        with path.open("wb") as out:
            put(pieces, out)
        packed = bootfiles.find(str(path)).packed
        assert packed is not None and (packed.size, packed.cmdline) == (archive.stat().st_size, "quiet")
        given = memory.memory_for(packed, "")
        assert given.mib >= 3 * 800 and "unpacks to 801 MB" in given.why
    with uki.open("r+b") as stream:
        stream.truncate(5000)  # the initrd would lie behind the end
    assert bootfiles.find(str(uki)).packed is None


def sparse_cpio(path: Path, size: int) -> Path:
    """An archive with one large file, without writing it."""
    head = b"070701" + b"".join(b"%08x" % n for n in (1, 0o100644, 0, 0, 1, 0, size, 0, 0, 0, 0, 4, 0)) + b"big\0"
    with path.open("wb") as f:
        f.write(head.ljust(-(-len(head) // 4) * 4, b"\0"))
        f.seek(size, 1)
        f.write(initrd_of(b""))
    return path


def test_programs_and_other_images(tmp_path: Path) -> None:
    uki = tmp_path / "x.efi"
    uki.write_bytes(program(0xAA64))
    assert bootfiles.find(str(uki)) == bootfiles.BootFiles(uki, None, "", "aarch64", uefi=True)
    bios = tmp_path / "x-bios.img"
    bios.write_bytes(b"\xfa" * 510 + b"\x55\xaa" + bytes(4096))
    assert not bootfiles.find(str(bios)).uefi
    packed = tmp_path / "x-efi.qcow2"
    packed.write_bytes(b"QFI\xfb" + bytes(600))
    assert bootfiles.find(str(packed)).uefi


def test_prepare_puts_the_disk_first_and_finds_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, variables = describe(tmp_path / "firmware", "60-plain")
    monkeypatch.setattr(firmware, "DESCRIPTORS", (tmp_path / "firmware",))
    fake = tmp_path / "qemu"
    fake.write_text("")
    fake.chmod(0o755)
    image = disk(tmp_path / "web-efi.img", "BOOTX64.EFI")
    prepared = prepare(Request(str(image), disks=("size=1M",), qemu=fake, accel="tcg"))
    with prepared.lock:
        assert [d.path for d in prepared.spec.disks] == [image, Path(f"{image}-state/disk.img")]
        assert prepared.spec.firmware == Firmware(code, Path(f"{image}-state/uefi-vars.fd"))
        assert prepared.spec.kernel is None
        assert f"firmware: {code} (UEFI)" in prepared.notes
        assert prepared.spec.firmware.variables.read_bytes() == variables.read_bytes()
    prepared = prepare(Request(str(image), qemu=fake, accel="tcg", uefi=False))
    with prepared.lock:
        assert prepared.spec.firmware is None
