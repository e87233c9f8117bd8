"""config.json and runtime.json, beyond what the recorded builds show: faults, volumes, bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linuxkit.config.model import ImageSettings, Mount
from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError
from linuxkit.oci.media import ImageConfig
from linuxkit.runtime.check import check_settings
from linuxkit.runtime.ids import id_map, resolve_id
from linuxkit.runtime.json import go_json
from linuxkit.runtime.label import LABEL, merge_settings, settings_from_label
from linuxkit.runtime.oci_spec import oci_spec, to_json
from linuxkit.runtime.runtime_spec import runtime_spec

pytestmark = pytest.mark.unit
VOLUMES = "volumes: [{name: vola}, {name: volro, readonly: true}]\n"


def spec(keys: str, label: dict[str, Any] | None = None, image: ImageConfig = ImageConfig()) -> dict[str, Any]:  # noqa: B008
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    config = parse_config(f"{VOLUMES}services:\n  - name: app\n    image: img\n{lines}", "f.yml")
    app = config.services[0]
    below = settings_from_label({LABEL: json.dumps(label)}, "img") if label else ImageSettings()
    settings = merge_settings(app.settings, below)
    return oci_spec(app, settings, image, id_map(config), {v.name: v for v in config.volumes})


def faults(keys: str, label: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(InputError) as caught:
        spec(keys, label)
    assert "app" in caught.value.message
    return [str(p) for p in caught.value.problems]


def mount(found: dict[str, Any], destination: str) -> dict[str, Any]:
    (one,) = [m for m in found["mounts"] if m["destination"] == destination]
    assert isinstance(one, dict)
    return one


MINIMAL = """\
{
    "ociVersion": "1.2.1",
    "process": {
        "user": {
            "uid": 0,
            "gid": 0
        },
        "args": [
            "/bin/sh"
        ],
        "env": [
            "A=\\u003c\\u0026"
        ],
        "cwd": "/",
        "capabilities": {}
    },
    "root": {
        "path": "rootfs"
    },
    "mounts": ["""


def test_the_bytes() -> None:
    data = to_json(spec("", image=ImageConfig(cmd=("/bin/sh",), env=("A=<&",))))
    assert data.startswith(MINIMAL.encode())
    assert data.endswith(b'"type": "mount"\n            }\n        ]\n    }\n}')


def test_key_order_with_everything() -> None:
    found = spec("""\
capabilities: [CAP_KILL]
ambient: [CAP_BPF]
hostname: h
readonly: true
annotations: {b: "1", a: "2"}
additionalGids: [5]
rlimits: ["nofile,1,2"]
noNewPrivileges: true
oomScoreAdj: 0
userns: new
uidMappings: [{hostID: 1000, size: 10}]
gidMappings: [{containerID: 3, hostID: 4, size: 5}]
sysctl: {z: "1", y: "2"}
cgroupsPath: /c
devices: [{path: /dev/x, type: c, major: 1, mode: "0600"}]
rootfsPropagation: shared
maskedPaths: [/a]
readonlyPaths: [/b]
""")
    assert list(found) == ["ociVersion", "process", "root", "hostname", "mounts", "annotations", "linux"]
    assert list(found["process"]) == ["user", "cwd", "capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj"]
    assert list(found["process"]["capabilities"]) == ["bounding", "effective", "inheritable", "permitted", "ambient"]
    assert found["process"]["capabilities"]["bounding"] == ["CAP_BPF", "CAP_KILL"]
    assert list(found["linux"]) == ["uidMappings", "gidMappings", "sysctl", "resources", "cgroupsPath", "namespaces",
                                    "devices", "rootfsPropagation", "maskedPaths", "readonlyPaths"]  # fmt: skip
    assert list(found["annotations"]) == ["a", "b"]
    assert list(found["linux"]["sysctl"]) == ["y", "z"]
    assert found["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 10}]
    assert found["process"]["oomScoreAdj"] == 0
    assert found["linux"]["devices"] == [{"path": "/dev/x", "type": "c", "major": 1, "minor": 0, "fileMode": 0o600}]


def test_camel_case_resources_are_honoured() -> None:
    found = spec("""\
resources:
  memory: {kernelTCP: 1, disableOOMKiller: true}
  cpu: {realtimeRuntime: 2, realtimePeriod: 3}
  blockio: {leafWeight: 10, weightDevice: [{major: 8, leafWeight: 11}], throttleWriteIOPSDevice: [{major: 8, rate: 5}]}
  hugepageLimits: [{pageSize: 2097152, limit: 4}, {pageSize: 1GB}]
  network: {classID: 5}
  devices: [{access: r}]
""")["linux"]["resources"]
    assert found == {
        "devices": [{"allow": False, "access": "r"}],
        "memory": {"kernelTCP": 1, "disableOOMKiller": True},
        "cpu": {"realtimeRuntime": 2, "realtimePeriod": 3},
        "blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 11}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 5}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}, {"pageSize": "1GB", "limit": 0}],
        "network": {"classID": 5},
    }  # fmt: skip


def test_volumes_by_name() -> None:
    source = "/containers/volumes/vola/merged"
    found = spec(
        "binds: ['vola:/a', 'volro:/b:ro']\nmounts: [{type: bind, source: vola, destination: /c, options: [rw]}]"
    )
    assert mount(found, "/a") == {"destination": "/a", "type": "bind", "source": source,
                                  "options": ["rw", "rbind", "rshared"]}  # fmt: skip
    assert mount(found, "/b")["options"] == ["ro", "rbind"]
    assert mount(found, "/c") == {"destination": "/c", "type": "bind", "source": source, "options": ["rw"]}
    assert mount(spec("binds.add: ['vola:/a']", {"binds": ["/x:/x"]}), "/a")["source"] == source
    assert mount(spec("", {"binds": ["vola:/a"]}), "/a")["source"] == "vola", "a label knows no volumes"
    assert mount(spec("mounts: [{type: tmpfs, source: vola, destination: /t}]"), "/t")["source"] == "vola"


@pytest.mark.parametrize(("keys", "expected"), [
    ("binds: ['/x:/x', 'volb:/v']", "f.yml:5:22: services[0].binds[1]: there is no volume 'volb' (did you mean"),
    ("binds: ['volro:/v']", ("f.yml:5:13: services[0].binds[0]: the volume 'volro' is read-only "
                            "(mount it with the option `ro`)")),
    ("binds: ['volro:/v:rw,ro']", ("f.yml:5:13: services[0].binds[0]: the volume 'volro' is read-only "
                                  "(mount it with the option `ro`)")),
    ("mounts: [{type: bind, source: volro, destination: /v}]", ("f.yml:5:14: services[0].mounts[0]: the volume 'volro' "
                                                              "is read-only (mount it with the option `ro`)")),
    ("binds.add: ['ghost:/v']", ("f.yml:5:17: services[0].binds.add[0]: there is no volume 'ghost' "
                                "(known: vola, volro)")),
    ("binds: [/x]", "f.yml:5:13: services[0].binds[0]: '/x' has no ':' (source:destination[:options])"),
    ("tmpfs: ['/x:a:b']", "f.yml:5:13: services[0].tmpfs[0]: '/x:a:b' has more than one ':' (destination[:options])"),
    ("capabilities: [CAP_NET_ADMN]", ("f.yml:5:20: services[0].capabilities[0]: unknown capability 'CAP_NET_ADMN' "
                                     "(did you mean 'CAP_NET_ADMIN'?)")),
    ("capabilities: [net_raw]", ("f.yml:5:20: services[0].capabilities[0]: unknown capability 'net_raw' "
                                "(did you mean 'CAP_NET_RAW'?)")),
    ("capabilities: [CAP_BPF, all]", ("f.yml:5:29: services[0].capabilities[1]: unknown capability 'all' "
                                     "('all' has to stand alone)")),
    ("capabilities.add: [CAP_X]", "f.yml:5:24: services[0].capabilities.add[0]: unknown capability 'CAP_X'"),
    ("rlimits: ['nofil,1,2']", "f.yml:5:15: services[0].rlimits[0]: unknown limit 'nofil' (did you mean 'NOFILE'?)"),
    ("rlimits: ['nofile,1']", "f.yml:5:15: services[0].rlimits[0]: 'nofile,1' is not a limit (name,soft,hard)"),
    ("rlimits: ['nofile,1,18446744073709551616']", ("f.yml:5:15: services[0].rlimits[0]: '18446744073709551616' is not "
                                                   "a limit's value (a whole number, or unlimited)")),
    ("uid: ap", "f.yml:5:10: services[0].uid: no entry is named 'ap' (did you mean 'app'?)"),
    ("gid: '5'", "f.yml:5:10: services[0].gid: no entry is named '5' (write the number without quotes)"),
    ("additionalGids: [1, x]", "f.yml:5:25: services[0].additionalGids[1]: no entry is named 'x' (known: app)"),
    ("devices: [{path: /dev/x, type: c}]", ("f.yml:5:15: services[0].devices[0]: '' is not an octal mode "
                                           '(write it in quotes: mode: "0666")')),
    ("devices: [{path: all, type: x}]", ("f.yml:5:15: services[0].devices[0]: 'x' is not a type of device "
                                        "(one of a, b, c, p, u)")),
    ("mounts: [{destination: /y}]", "f.yml:5:14: services[0].mounts[0]: the mount for /y has no type (write `type:`)"),
])  # fmt: skip
def test_a_fault_has_its_place(keys: str, expected: str) -> None:
    found = faults(keys)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_all_faults_of_a_container_and_those_of_its_label() -> None:
    found = faults("tmpfs: ['/x:a:b']\nuid: nobody", {"capabilities": ["CAP_X"], "binds": ["/l"]})
    assert len(found) == 4
    assert [f for f in found if "in the label of image img" in f] == [
        f for f in found if ".binds[0]" in f or ".capabilities[0]" in f
    ]
    assert len([f for f in found if f.startswith("f.yml:3:11: ") and "label" in f]) == 2


def test_ids() -> None:
    config = parse_config("""
onboot: [{name: a, image: i}, {name: a, image: i}]
onshutdown: [{name: b, image: i}]
services: [{name: "7", image: i}]
""")
    ids = id_map(config)
    assert ids == {"a": 101, "b": 102, "7": 103}
    given = [None, "", "root", 5, "a", "7"]
    assert [resolve_id(value, ids) for value in given] == [0, 0, 0, 5, 101, 103]


def test_runtime_json_has_every_key_in_order() -> None:
    found = runtime_spec(ImageSettings(), [Mount("/r", "", "/l", ("bind",))])
    assert list(found) == ["cgroups", "mounts", "mkdir", "interfaces", "bindNS", "namespace"]
    assert list(found["bindNS"]) == ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
    assert go_json(found["mounts"]).startswith(b'[\n    {\n        "destination": "/r",\n        "source": "/l",')


def test_go_json_escapes_as_go_does() -> None:
    text = '<>&\u2028\u2029\x00\x7f\u00e9\n\t\b\f"\\/\ud800'
    expected = r'"\u003c\u003e\u0026\u2028\u2029\u0000' + "\x7fé" + r'\n\t\b\f\"\\/\ufffd"'
    assert go_json(text) == expected.encode()
    assert go_json({"a": [], "b": {}}) == b'{\n    "a": [],\n    "b": {}\n}'


def test_faults_that_need_no_image_are_found_before_any_is_fetched() -> None:
    config = parse_config("""\
onboot: [{name: a, image: i, tmpfs: ['/x:a:b']}]
services: [{name: b, image: i, capabilities: [CAP_X]}, {name: c, image: i, command: []}]
files: [{path: x, contents: x, uid: nobody, gid: b}]
""", "f.yml")  # fmt: skip
    with pytest.raises(InputError) as caught:
        check_settings(config)
    assert [str(p).split(": ")[:2] for p in caught.value.problems] == [
        ["f.yml:1:38", "onboot[0].tmpfs[0]"],
        ["f.yml:2:47", "services[0].capabilities[0]"],
        ["f.yml:3:9", "files[0].uid"],
    ]
    check_settings(parse_config("services: [{name: b, image: i, capabilities: [all]}]"))


def test_the_hint_for_a_capability_compares_the_names_themselves() -> None:
    assert "did you mean" not in faults("capabilities: [CAP_X]")[0]
    assert "did you mean 'CAP_SYS_ADMIN'?" in faults("ambient: [SYS_ADMN]")[0]
