"""CDs, booted by both kinds of firmware as CDs and as USB sticks."""

from __future__ import annotations

import pytest

from linuxkit.platforms.bootimage import Media
from support.firmware import judge
from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
SYSTEM = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline") + """\
onboot:
  - name: marker
    image: kit://busybox
    command:
      - /bin/sh
      - -c
      - |
        echo started-by-$(test -d /sys/firmware/efi && echo uefi || echo bios)
        echo root-on-$(grep ' / ' /mounts | cut -d' ' -f3)
    binds: ["/sys:/sys:ro", "/proc/1/mounts:/mounts"]
    maskedPaths: []  # /sys/firmware is masked by default
services:
  - name: service
    image: kit://busybox
    command: ["/bin/sleep", "1000"]
"""


@pytest.mark.parametrize(("media", "firmware"), [(Media.CD, "bios"), (Media.CD, "uefi"), (Media.USB, "bios")])
def test_one_cd_for_both(build: Build, media: Media, firmware: str) -> None:
    cd = build(SYSTEM, "--format", "iso") + ".iso"
    with boot(cd, seconds=150, media=media, uefi=firmware == "uefi") as machine:
        judge(machine, firmware)


def test_a_cd_for_uefi_boots_from_a_disk(build: Build) -> None:
    cd = build(SYSTEM, "--format", "iso-efi-initrd") + "-efi-initrd.iso"
    with boot(cd, seconds=150, media=Media.DISK) as machine:
        assert machine.prepared.spec.firmware is not None  # type: ignore[attr-defined]
        judge(machine, "uefi")
        assert machine.power_off(30).off


@pytest.mark.parametrize(("name", "media", "firmware"), [("bios", Media.DISK, "bios"), ("efi", Media.CD, "uefi")])
def test_the_cd_is_the_root(build: Build, name: str, media: Media, firmware: str) -> None:
    cd = build(SYSTEM, "--format", f"iso-{name}") + (".iso" if name == "bios" else "-efi.iso")
    with boot(cd, seconds=150, media=media) as machine:
        judge(machine, firmware)
        machine.wait_console("root-on-iso9660", 20)
