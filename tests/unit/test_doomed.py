"""Settings with which no runtime starts a container: each is told with its place, and what works is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linuxkit.config.model import ImageSettings
from linuxkit.config.parse import parse_config
from linuxkit.errors import Problem
from linuxkit.oci.media import ImageConfig
from linuxkit.oci.store import Store
from linuxkit.runtime.doomed import bad_tmpfs_option, doomed
from linuxkit.runtime.ids import id_map
from linuxkit.runtime.label import LABEL, merge_settings, settings_from_label
from linuxkit.runtime.oci_spec import oci_spec
from support.builds import YAML, linuxkit, make_cache
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.unit


def found(keys: str, label: dict[str, object] | None = None, cmd: tuple[str, ...] = ("/bin/app",)) -> list[Problem]:
    config = parse_config("services:\n  - name: app\n    image: img\n" + "".join(
        f"    {line}\n" for line in keys.splitlines()), "f.yml")  # fmt: skip
    app = config.services[0]
    below = settings_from_label({LABEL: json.dumps(label)}, "img") if label else ImageSettings()
    return doomed(app, oci_spec(app, merge_settings(app.settings, below), ImageConfig(cmd=cmd), id_map(config), {}))


@pytest.mark.parametrize(
    ("keys", "place", "says"),
    [
        ("net: bridge", "4:10: services[0].net", "'bridge' is no network namespace"),
        ("pid: container:x", "4:10: services[0].pid", "'container:x' is no pid namespace"),
        ("ipc: shareable", "4:10: services[0].ipc", "is no ipc namespace"),
        ("uts: private", "4:10: services[0].uts", "is no uts namespace"),
        ("userns: keep-id", "4:13: services[0].userns", "is no user namespace"),
        ("net: run/netns/a", "4:10: services[0].net", "is no network namespace"),
        ('sysctl: {net.ipv4.ip_forward: "1"}', "services[0].sysctl", "belongs to the network namespace"),
        ('net: root\nsysctl: {net/ipv4/ip_forward: "1"}', "services[0].sysctl", "belongs to the network namespace"),
        ('net: new\nsysctl: {vm.max_map_count: "1"}', "services[0].sysctl", "belongs to the whole machine"),
        ('sysctl: {fs.file-max: "1"}', "services[0].sysctl", "belongs to the whole machine"),
        ('sysctl: {kernel.shmmax: "1"}', "services[0].sysctl", "belongs to the ipc namespace"),
        ('sysctl: {fs.mqueue.msg_max: "1"}', "services[0].sysctl", "belongs to the ipc namespace"),
        ('uts: new\nsysctl: {kernel.hostname: "a"}', "services[0].sysctl", "host name"),
        ("hostname: web", "4:15: services[0].hostname", "needs a uts namespace"),
        ("hostname: web\nuts: host", "4:15: services[0].hostname", "needs a uts namespace"),
        ('rlimits: ["nproc,1,2", "nofile,2000,1000"]', "services[0].rlimits[1]", "above the hard one"),
        ('rlimits: ["nofile,1,2000000"]', "services[0].rlimits[0]", "opens 1048576 files"),
        ('rlimits: ["nofile,unlimited,unlimited"]', "services[0].rlimits[0]", "opens 1048576 files"),
        ('rlimits: ["core,unlimited,0"]', "services[0].rlimits[0]", "above the hard one"),
        ('tmpfs: ["/a", "/tmp:size=10q"]', "services[0].tmpfs[1]", "no option 'size=10q'"),
        ('tmpfs: ["/tmp:size"]', "services[0].tmpfs[0]", "no option 'size'"),
        ('tmpfs: ["/tmp:nosuid,foo"]', "services[0].tmpfs[0]", "no option 'foo'"),
        ('tmpfs: ["/tmp:mode=9"]', "services[0].tmpfs[0]", "no option 'mode=9'"),
        ("mounts: [{destination: /x, type: tmpfs, options: [uid=root]}]", "services[0].mounts[0]", "'uid=root'"),
        ("command: []", "4:14: services[0].command", "nothing to run"),
        ('command: [""]', "4:14: services[0].command", "nothing to run"),
        ("uidMappings: [{hostID: 1, size: 1}]", "services[0].uidMappings", "user namespace only"),
        ("rootfsPropagation: both", "4:24: services[0].rootfsPropagation", "no propagation"),
        ("cwd: app", "4:10: services[0].cwd", "not absolute"),
    ],
)  # fmt: skip
def test_what_no_runtime_starts(keys: str, place: str, says: str) -> None:
    (problem,) = found(keys)
    assert str(problem).startswith("f.yml:") and place in str(problem) and says in problem.message


@pytest.mark.parametrize(
    "keys",
    [
        "net: new", "net: none", "net: host", "net: /run/netns/a", "pid: host", "uts: new\nhostname: a", "ipc: root",
        'net: new\nsysctl: {net.ipv4.ip_forward: "1", net/core/somaxconn: "9"}', 'ipc: new\nsysctl: {kernel.sem: "1"}',
        'net: /run/netns/a\nsysctl: {net.ipv4.ip_forward: "1"}', 'uts: new\nsysctl: {kernel.domainname: "a"}',
        'rlimits: ["nofile,1024,1048576", "memlock,unlimited,unlimited", "core,0,0"]', "rootfsPropagation: rslave",
        'tmpfs: ["/a", "/b:size=50%,mode=1777,uid=5,gid=5,nr_inodes=10k,huge=always,nosuid,noexec,nodev,ro,noatime"]',
        'tmpfs: ["/c:rw,private,mpol=local,tmpcopyup"]',
        "userns: new\nuidMappings: [{hostID: 1, size: 1}]", "cwd: /app",
    ],
)  # fmt: skip
def test_what_works_is_not_spoken_of(keys: str) -> None:
    assert found(keys) == []


def test_what_a_label_says_is_told_as_the_labels() -> None:
    (problem,) = found("", {"net": "bridge"})
    assert "in the label of image img" in problem.message and problem.line == 2
    (problem,) = found("", cmd=())
    assert "nothing to run" in problem.message


def test_options_of_a_tmpfs() -> None:
    assert bad_tmpfs_option(["mode=755", "size=65536k", "strictatime"]) == ""
    assert bad_tmpfs_option(["nosuid", "bogus=1"]) == "bogus=1"


def test_check_and_build_refuse_in_our_systems_and_warn_in_linuxkits(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    make_image(Store(cache), "docker.io/t/guest:1", tar_of(member("init", b"#!/bin/sh\n", mode=0o755)),
               config={"Labels": {"org.linuxkit.guest": "plan/1"}})  # fmt: skip
    theirs = YAML.replace("  - name: app\n", "  - name: app\n    net: bridge\n")
    theirs += "  - path: etc/maybe\n    source: nowhere\n    optional: true\n"
    for text, status, word in ((theirs, 0, "warning: "), (theirs.replace("t/init:1", "t/guest:1"), 2, "  ")):
        (tmp_path / "x.yml").write_text(text)
        for command in (["check"], ["build", "--format", "tar"], ["build", "--format", "tar"]):
            done = linuxkit(*command, "x.yml", cwd=tmp_path, cache=cache, check=False)
            assert done.returncode == status, done.stderr
            assert f"{word}x.yml:11:10: services[0].net: 'bridge' is no network namespace" in done.stderr
            assert "note: x.yml:22:5: files[1].source: there is no file 'nowhere', and it is left out" in done.stderr
