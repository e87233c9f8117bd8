"""The guest's boot plan. tests/guest reads the same fixture with the guest's own parser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linuxkit.config.model import OnFail, Restart
from linuxkit.errors import InputError
from linuxkit.runtime import bootplan
from linuxkit.runtime.bootplan import PlannedContainer, PlannedVolume, boot_plan, containerd_specs, mount_flags

pytestmark = pytest.mark.unit
FIXTURE = Path(__file__).resolve().parents[1] / "guest" / "fixtures" / "plan"


def writable(directory: str) -> list[dict[str, object]]:
    """The mounts that every writable container has in front of its own."""
    return [
        {"destination": f"{directory}/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": f"{directory}/tmp", "options": ["remount", "private"]},
        {"destination": f"{directory}/rootfs", "type": "overlay", "source": "overlay",
         "options": [f"lowerdir={directory}/lower", f"upperdir={directory}/tmp/upper",
                     f"workdir={directory}/tmp/work"]},
    ]  # fmt: skip


def container(
    kind: bootplan.Kind = "service", directory: str = "/containers/services/a", **runtime: object
) -> PlannedContainer:
    return PlannedContainer(kind, "a", directory, runtime, {"root": {"path": "rootfs"}})


VOLUMES = [PlannedVolume("data", "/containers/volumes/data"), PlannedVolume("fixed", "/containers/volumes/fixed", True)]
DHCP, WEB = "/containers/onboot/000-dhcp", "/containers/services/web"
CONTAINERS = [
    PlannedContainer("onboot", "dhcp", DHCP, {"mounts": writable(DHCP), "cgroups": ["net"]}, {}, onfail=OnFail.HALT),
    PlannedContainer("onshutdown", "bye", "/containers/onshutdown/000-bye", {"mounts": [
        {"destination": "/containers/onshutdown/000-bye/rootfs", "source": WEB, "options": ["bind"]}]}, {}),
    PlannedContainer("service", "web", WEB, {
        "mounts": [*writable(WEB), {"destination": "/var/a b\t\\\n", "type": "bind", "source": "/tmp",
                    "options": ["rw", "rbind", "rshared"]},
                   {"destination": "data", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "ro", "rw", "size=1m", "mode=700"]}],
        "mkdir": ["/var/lib/x", "../../var/y"], "cgroups": ["podruntime", "/systemd/"],
        "interfaces": [{"name": "eth0", "createInRoot": False},
                       {"name": "v0", "add": "", "peer": "v1", "createInRoot": False},
                       {"name": "wg0", "add": "wireguard", "createInRoot": True}],
        "bindNS": {"uts": "/run/ns/uts", "net": "/run/ns/net", "pid": ""}, "namespace": "other",
    }, {}, restart=Restart.ON_FAILURE),
    PlannedContainer("service", "plain", "/containers/services/plain", {}, {}, restart=Restart.ALWAYS),
]  # fmt: skip


def test_the_plan_is_the_one_that_the_guest_is_tested_with() -> None:
    assert boot_plan(VOLUMES, CONTAINERS) == FIXTURE.read_bytes()


def test_an_empty_plan_is_its_first_line() -> None:
    assert boot_plan([], []) == b"linuxkit-plan\t1\n"


@pytest.mark.parametrize(
    ("options", "flags", "data"),
    [
        ([], 0, ""),
        (["rw", "rbind", "rshared"], 4096 | 16384 | (1 << 20), ""),
        (["ro", "nosuid", "nodev", "noexec", "relatime"], 1 | 2 | 4 | 8 | (1 << 21), ""),
        (["ro", "rw"], 0, ""),
        (["remount", "private"], 32 | (1 << 18), ""),
        (["mode=755", "size=1m", "defaults", ""], 0, "mode=755,size=1m"),
        (["rslave", "strictatime", "noatime", "nodiratime", "dirsync", "sync", "mand"],
         (1 << 19) | 16384 | (1 << 24) | 1024 | 2048 | 128 | 16 | 64, ""),
    ],
)  # fmt: skip
def test_mount_options_become_flags_and_data(options: list[str], flags: int, data: str) -> None:
    assert mount_flags(options) == (flags, data)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"mounts": [{"type": "tmpfs"}]}, "a mount in runtime.mounts has no destination"),
        ({"mounts": [{"destination": "/x", "source": "/dev/sda"}]}, "has no type"),
        ({"interfaces": [{"add": "veth"}]}, "has no name"),
        ({"interfaces": [{"name": "v", "add": "veth"}]}, "veth without a peer"),
        ({"interfaces": [{"name": "v", "add": "dummy", "peer": "w"}]}, "have none"),
        ({"interfaces": [{"name": "a-name-of-16-char"}]}, "longer than 15"),
        ({"mkdir": ["/a\0b"]}, "zero byte"),
    ],
)
def test_what_the_guest_could_not_do_is_refused(runtime: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        boot_plan([], [container(**runtime)])


def test_relative_paths_stay_below_the_containers_root() -> None:
    plan = boot_plan(
        [], [container(mkdir=["x", "../../../etc", "."], mounts=[{"destination": "..", "type": "tmpfs"}])]
    ).decode()
    assert (
        "mkdir\t/containers/services/a/rootfs/x\nmkdir\t/containers/services/a/rootfs/etc\nmkdir\t/containers/services/a/rootfs\n"
        in plan
    )
    assert "mount\ttmpfs\t\t/containers/services/a/rootfs\t0\t\n" in plan


def test_containerd_gets_services_with_absolute_roots() -> None:
    specs = containerd_specs([*CONTAINERS, container(bindNS={"net": ""})])
    assert sorted(specs) == ["a.json", "plain.json", "web.json"]
    assert json.loads(specs["a.json"]) == {"root": {"path": "/containers/services/a/rootfs"}}
    hook = {"path": "/usr/bin/service", "args": ["service", "prepare", "web"]}
    assert json.loads(specs["web.json"])["hooks"] == {"createRuntime": [hook]}


def test_a_spec_keeps_what_it_had() -> None:
    spec = {
        "root": {"path": "rootfs", "readonly": True},
        "hooks": {"createRuntime": [{"path": "/x"}], "poststop": [1]},
        "hostname": "ü",
    }
    one = PlannedContainer("service", "a", "/containers/services/a", {"interfaces": [{"name": "eth0"}]}, spec)
    made = json.loads(containerd_specs([one])["a.json"])
    assert made["root"] == {"path": "/containers/services/a/rootfs", "readonly": True}
    assert [h["path"] for h in made["hooks"]["createRuntime"]] == ["/x", "/usr/bin/service"]
    assert made["hooks"]["poststop"] == [1] and made["hostname"] == "ü"
    assert spec["root"] == {"path": "rootfs", "readonly": True}
