"""Programs that cannot start: told by what their root filesystem lacks; what works, or cannot be told, is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linuxkit import api
from linuxkit.checking import check
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.oci.store import Store
from linuxkit.outputs.needs import Root
from linuxkit.plan.model import Options
from support.debs import elf_of
from support.images import directory, make_image, member, symlink, tar_of
from support.kernels import bzimage, config, elf

pytestmark = pytest.mark.unit
GLIBC = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


def tree(*extra: Entry, **files: bytes | str) -> dict[str, Entry]:
    """Executable files by path (`__` stands for `/`, `_0` for `.`); text is a symlink."""
    found = [*extra]
    for name, data in files.items():
        path = name.replace("__", "/").replace("_0", ".")
        if isinstance(data, str):
            found.append(Entry(path, Kind.SYMLINK, 0o777, target=data))
        else:
            found.append(Entry(path, Kind.FILE, 0o755, source=Bytes(data)))
    return {entry.path: entry for entry in found}


STATIC = elf_of()
DYNAMIC = elf_of(interpreter=GLIBC, needed=["libc.so.6"])
LOADER = Entry("lib64/ld-linux-x86-64.so.2", Kind.FILE, 0o755, source=Bytes(elf_of()))
LIBC = Entry("usr/lib/x86_64-linux-gnu/libc.so.6", Kind.FILE, 0o644, source=Bytes(elf_of(soname="libc.so.6")))


@pytest.mark.parametrize(
    ("entries", "program", "says"),
    [
        (tree(), "/bin/app", "there is no /bin/app"),
        (tree(), "app", "there is no app in /usr/sbin:/usr/bin:/sbin:/bin"),
        (tree(Entry("bin/app", Kind.FILE, 0o644, source=Bytes(STATIC))), "/bin/app", "/bin/app is not executable"),
        (tree(Entry("bin/app", Kind.FILE, 0o644, source=Bytes(STATIC))), "app", "/bin/app is not executable"),
        (tree(Entry("bin/app", Kind.DIRECTORY, 0o755)), "/bin/app", "/bin/app is a directory"),
        (tree(bin__app=b"text"), "/bin/app", "no program: neither ELF nor a script"),
        (tree(bin__app=b""), "/bin/app", "no program"),
        (tree(bin__app=b"#!/bin/sh\n"), "/bin/app", "/bin/app needs /bin/sh, which is not there"),
        (tree(bin__app=b"#! /bin/bash -e\n", bin__sh=STATIC), "/bin/app", "needs /bin/bash, which is not there"),
        (tree(bin__app=b"#!/bin/sh\r\n", bin__sh=STATIC), "/bin/app", "lines end like those of Windows"),
        (tree(bin__app=b"#!/usr/bin/env python3\n", usr__bin__env=STATIC), "/bin/app", "needs python3, which is not"),
        (tree(bin__app=b"#!/usr/bin/env -S node --x\n", usr__bin__env=STATIC), "/bin/app", "needs node, which is not"),
        (tree(bin__app=b"#!/bin/sh\n", bin__sh=b"#!/bin/dash\n"), "/bin/app", "/bin/sh needs /bin/dash"),
        (tree(Entry("bin/sh", Kind.FILE, 0o644), bin__app=b"#!/bin/sh\n"), "/bin/app", "which is not executable"),
        (tree(bin__app=DYNAMIC), "/bin/app", f"/bin/app needs the loader {GLIBC}, which is not there"),
        (tree(LOADER, bin__app=DYNAMIC), "/bin/app", "/bin/app needs the library libc.so.6, which is not there"),
        (tree(LOADER, LIBC, bin__app=elf_of(interpreter=GLIBC, needed=["libc.so.6", "libx.so.1"])), "/bin/app",
         "libx.so.1"),
        (tree(LOADER, LIBC, bin__app=elf_of(interpreter=GLIBC, needed=["liba.so"]),
              lib__liba_0so=elf_of(needed=["libb.so"])),
         "/bin/app", "needs the library libb.so"),
        (tree(bin__app=b"#!/bin/sh\n", bin__sh=DYNAMIC), "/bin/app", "/bin/sh needs the loader"),
    ],
)  # fmt: skip
def test_what_cannot_start(entries: dict[str, Entry], program: str, says: str) -> None:
    candidates = [program] if "/" in program else [f"{p}/{program}" for p in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")]
    assert says in Root(entries).fault(program, candidates)


@pytest.mark.parametrize(
    ("entries", "mounts"),
    [
        (tree(bin__app=STATIC), ()),
        (tree(usr__bin__app=STATIC, bin="usr/bin"), ()),
        (tree(bin__app="busybox", bin__busybox=STATIC), ()),
        (tree(bin__app="/mnt/app"), ()),  # who knows where that leads
        (tree(), ("/bin",)), (tree(), ("/",)),
        (tree(bin__app=b"#!/bin/sh\n"), ("/bin/sh",)),
        (tree(bin__app=b"#!/bin/sh\n", bin__sh="busybox", bin__busybox=STATIC), ()),
        (tree(bin__app=b"#!/usr/bin/env sh\n", usr__bin__env=STATIC, bin__sh=STATIC), ()),
        (tree(LOADER, LIBC, bin__app=DYNAMIC), ()),
        (tree(LOADER, bin__app=DYNAMIC), ("/usr/lib",)), (tree(bin__app=DYNAMIC), ("/lib64",)),
        (tree(bin__app=elf_of(interpreter=MUSL, needed=["libc.musl-x86_64.so.1"]),
              **{"lib__ld-musl-x86_64_0so_01": STATIC}), ()),
        (tree(bin__app=b"\x7fELF"), ()), (tree(bin__app=b"\x7fELF" + bytes(100)), ()),  # damaged: no telling
        (tree(LOADER, LIBC, bin__app=elf_of(interpreter=GLIBC, needed=["/opt/x/libc.so.6"])), ("/var", "/etc/x")),
    ],
)  # fmt: skip
def test_what_can_start_or_cannot_be_told(entries: dict[str, Entry], mounts: tuple[str, ...]) -> None:
    assert Root(entries, mounts).fault("/bin/app", ["/bin/app"]) == ""


# -- whole systems

AMD = elf(62)
HEAD = "kernel:\n  image: t/kernel:1\n  cmdline: console=ttyS0\ninit:\n  - t/init:1\n"


class System:
    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "cache")
        modules = tar_of(member("lib/modules/6.1/modules.builtin", b"kernel/overlay.ko\nkernel/af_packet.ko\n"))
        kernel = {"kernel": bzimage(), "kernel-config": config()}
        make_image(self.store, "docker.io/t/kernel:1",
                   tar_of(*(member(n, d) for n, d in kernel.items()), member("kernel.tar", modules)))  # fmt: skip
        self.init()
        make_image(self.store, "docker.io/t/app:1", tar_of(directory("bin"), member("bin/app", AMD, mode=0o755)))

    def init(self, *extra: object) -> None:
        own = [member("init", AMD, mode=0o755), symlink("usr/bin/service", "/init"), directory("etc/init.d")]
        make_image(self.store, "docker.io/t/init:1", tar_of(*own, *extra),  # type: ignore[arg-type]
                   config={"Labels": {"org.linuxkit.guest": "plan/1"}})  # fmt: skip

    def found(self, text: str) -> list[tuple[str, bool]]:
        (self.folder / "x.yml").write_text(HEAD + text)
        sources = api.Sources(self.folder / "cache", offline=True)
        for _ in range(2):  # once told, once kept
            judged = check(api.load(self.folder / "x.yml", sources=sources), sources=sources,
                           options=Options("amd64", sbom=""))  # fmt: skip
        return [(str(one.problem).rpartition("/x.yml:")[2], one.fatal) for one in judged]


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_a_kernel_without_seccomp(system: System) -> None:
    kernel = {"kernel": bzimage(), "kernel-config": config(without=["SECCOMP_FILTER"]), "kernel.tar": tar_of()}
    make_image(system.store, "docker.io/t/kernel:1", tar_of(*(member(n, d) for n, d in kernel.items())))
    told = [(said, fatal) for said, fatal in system.found(service("")) if "CONFIG_SECCOMP_FILTER" in said]
    assert len(told) == 1 and told[0][1] and "services.web" in told[0][0]
    assert not [said for said, _ in system.found(service("seccomp: unconfined")) if "SECCOMP" in said]


def service(keys: str) -> str:
    return "services:\n  - name: web\n    image: t/app:1\n" + "".join(f"    {line}\n" for line in keys.splitlines())


def test_a_system_with_nothing_wrong(system: System) -> None:
    assert system.found(service("binds: [/etc/init.d:/x, /var/run:/y, /run/z:/z, /usr/bin:/u]")) == []


def test_a_command_that_is_not_there_is_told_with_its_line(system: System) -> None:
    ((said, fatal),) = system.found(service("command: [/bin/other]"))
    assert fatal and said.startswith("9:14: services.web: there is no /bin/other")


def test_the_second_container_of_an_image_is_looked_at_too(system: System) -> None:
    text = service("") + "  - name: more\n    image: t/app:1\n    command: [/bin/other]\n"
    ((said, fatal),) = system.found(text)
    assert fatal and "services.more: there is no /bin/other" in said


def test_a_source_that_nobody_makes(system: System) -> None:
    ((said, fatal),) = system.found(service("binds: ['/usr/bin/ctr:/usr/bin/ctr']"))
    assert fatal and "/usr/bin/ctr is bound into it, and nobody makes it" in said and "kit://containerd" in said
    assert system.found(service("binds: ['/opt/x:/x']\nruntime: {mkdir: [/opt/x]}")) == []
    made = service("binds: ['/opt/x:/x']") + "files:\n  - {path: opt/x, directory: true, mode: '0755'}\n"
    assert system.found(made) == []


def test_a_label_can_ask_for_it_as_well(system: System) -> None:
    label = json.dumps({"binds": ["/usr/bin/runc:/usr/bin/runc", "/etc/resolv.conf:/etc/resolv.conf"]})
    make_image(system.store, "docker.io/t/app:1", tar_of(directory("bin"), member("bin/app", AMD, mode=0o755)),
               config={"Cmd": ["/bin/app"], "Labels": {"org.mobyproject.config": label}})  # fmt: skip
    told = [said for said, fatal in system.found(service("")) if fatal]
    assert len(told) == 1 and "/usr/bin/runc is bound" in told[0]


def test_an_init_d_script_without_its_shell(system: System) -> None:
    text = "files:\n  - {path: etc/init.d/050-x, contents: '#!/bin/sh', mode: '0755'}\n"
    ((said, fatal),) = system.found(text)
    assert fatal and said.startswith("7:5: /etc/init.d/050-x: /etc/init.d/050-x needs /bin/sh, which is not there")
    system.init(member("bin/sh", AMD, mode=0o755))
    assert system.found(text) == []


def test_an_init_without_its_loader(system: System) -> None:
    make_image(system.store, "docker.io/t/init:1", tar_of(member("init", DYNAMIC, mode=0o755)))
    told = system.found("")
    assert len(told) == 1 and told[0][1] and f"init: /init needs the loader {GLIBC}" in told[0][0]


def test_an_init_image_that_replaces_the_guests_program(system: System) -> None:
    other = tar_of(member("usr/bin/service", b"#!/init\n", mode=0o755))
    make_image(system.store, "docker.io/t/getty:1", other)
    ((said, fatal),) = system.found("  - t/getty:1\n")
    assert fatal and "something else than the guest's own program is at /usr/bin/service" in said
    make_image(system.store, "docker.io/t/getty:1", tar_of(member("usr/bin/other", AMD, mode=0o755)))
    assert system.found("  - t/getty:1\n") == []


@pytest.mark.parametrize(("user", "noted"), [("nginx", True), ("1000:1000", True), ("0:0", False), ("root", False)])
def test_an_images_user_that_does_not_count(system: System, user: str, noted: bool) -> None:
    make_image(system.store, "docker.io/t/app:1", tar_of(directory("bin"), member("bin/app", AMD, mode=0o755)),
               config={"Cmd": ["/bin/app"], "User": user})  # fmt: skip
    told = system.found(service(""))
    assert [fatal for _, fatal in told] == [False] * noted
    assert not noted or f"7:11: services[0]: the image's User '{user}' is ignored: it runs as root" in told[0][0]
    assert system.found(service("uid: 0")) == [] == system.found(service("uid: 33"))


def test_a_32_bit_program_and_the_seccomp_profile(system: System) -> None:
    small = elf(3, wide=False) if "wide" in elf.__code__.co_varnames else elf_of(machine=3, wide=False)
    make_image(system.store, "docker.io/t/app:1", tar_of(directory("bin"), member("bin/app", small, mode=0o755)))
    ((said, fatal),) = system.found(service(""))
    assert fatal and "32-bit program" in said
    assert system.found(service("seccomp: unconfined")) == []
