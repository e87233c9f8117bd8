"""One file to a Config, and every kind of fault in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.config import schema
from linuxkit.config.model import Config, Device, IdMapping, InitImage, Mount, OnFail, Position, Restart, VolumeFormat
from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError
from support.config_values import REPEATABLE, values

pytestmark = pytest.mark.unit
KNOWN = "known: kernel, init, onboot, onshutdown, services, files, volumes, trust, security"


def faults(text: str, **more: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_config(text, "f.yml", **more)
    assert caught.value.exit_code == 2
    return [str(p) for p in caught.value.problems]


def entry(keys: str) -> str:
    return f"services:\n  - name: app\n    image: a\n    {keys}\n"


def test_a_whole_file() -> None:
    config = parse_config(
        """
kernel: {image: k, cmdline: x, tar: none}
init: [a, b]
onboot: [{name: o, image: i, onfail: halt, uid: app, additionalGids: [1, root]}]
services:
  - name: app
    image: i
    restart: on-failure
    capabilities.add: [CAP_CHOWN]
    mounts: [{destination: /d, type: bind, source: v, options: [ro], uidmappings: [{hostID: 1, containerID: 2}]}]
    devices: [{path: /dev/x, type: c, major: 1, minor: 2, mode: "0600"}]
    resources: {blockio: {weight: 7}, hugepageLimits: [{pageSize: 2097152, limit: 1}]}
    runtime: {bindNS: {net: /run/n}, mkdir: []}
volumes: [{name: v, format: oci, image: i, platforms: [linux/amd64]}]
files: [{path: /etc/x, contents: "", mode: "0644", uid: 0}]
trust: {org: [o]}
""",
        "f.yml",
    )
    assert config.kernel.keys == {"image", "cmdline", "tar"}
    assert config.init == (InitImage("a"), InitImage("b"))
    assert config.init[1].position == Position("f.yml", 3, 11)
    assert config.onboot[0].settings.onfail is OnFail.HALT
    assert config.onboot[0].settings.uid == "app"
    assert config.onboot[0].settings.additional_gids == (1, "root")
    app = config.services[0]
    assert app.settings.restart is Restart.ON_FAILURE
    assert app.settings.capabilities_add == ("CAP_CHOWN",)
    assert app.settings.capabilities is None
    assert app.settings.mounts == (Mount("/d", "bind", "v", ("ro",), (IdMapping(1, 2, 0),)),)
    assert app.settings.devices == (Device("/dev/x", "c", 1, 2, "0600"),)
    assert app.settings.resources == {"blockIO": {"weight": 7}, "hugepageLimits": ({"pageSize": 2097152, "limit": 1},)}
    assert app.settings.runtime is not None
    assert app.settings.runtime.mkdir == ()
    assert app.settings.runtime.bind_ns == {"net": "/run/n"}
    assert app.positions["capabilities.add[0]"] == Position("f.yml", 9, 24)
    assert app.path == "services[0]"
    assert config.volumes[0].format is VolumeFormat.OCI
    assert config.files[0].contents == ""
    assert config.trust.org == ("o",)


def test_an_empty_mapping_is_an_empty_config() -> None:
    assert parse_config("{}") == Config()


def test_all_faults_at_once_in_order() -> None:
    assert faults("""\
kernel:
  image: 5
  foo: x
init: x
services:
  - name: 1
  - name: b
    image: a
    readonly: yes
  - name: b
    image: a
bogus: 1
""") == [
        'f.yml:2:10: kernel.image: needs a string, not an integer (put it in quotes: "5")',
        "f.yml:3:3: kernel: unknown key 'foo' (known: image, cmdline, binary, tar, ucode)",
        "f.yml:4:7: init: needs a list, not a string (start each item with '- ')",
        "f.yml:6:5: services[0]: 'image' is missing",
        'f.yml:6:11: services[0].name: needs a string, not an integer (put it in quotes: "1")',
        "f.yml:9:15: services[1].readonly: needs a boolean, not a string (write true, without quotes)",
        "f.yml:10:11: services[2].name: duplicate service name 'b' (first on line 7)",
        f"f.yml:12:1: unknown key 'bogus' ({KNOWN})",
    ]


@pytest.mark.parametrize(("text", "expected"), [
    ("service: []\n", "f.yml:1:1: unknown key 'service' (did you mean 'services'?)"),
    (entry("capabilites: []"), "f.yml:4:5: services[0]: unknown key 'capabilites' (did you mean 'capabilities'?)"),
    (entry("readOnly: true"), "f.yml:4:5: services[0]: unknown key 'readOnly' (did you mean 'readonly'?)"),
    (entry("mkdir: [/x]"), "f.yml:4:5: services[0]: unknown key 'mkdir' ('mkdir' belongs under 'runtime')"),
    (entry("restart: allways"), ("f.yml:4:14: services[0].restart: 'allways' is not one of no, on-failure, always "
                                "(did you mean 'always'?)")),
    (entry("onfail: halt"), "f.yml:4:5: services[0]: unknown key 'onfail'"),
    (entry("binds: /a:/b"), "f.yml:4:12: services[0].binds: needs a list, not a string (start each item with '- ')"),
    (entry("binds:"), "f.yml:4:11: services[0].binds: needs a list, not nothing (remove the key, or write [])"),
    (entry("uid: -1"), "f.yml:4:10: services[0].uid: -1 is out of range (0 to 4294967295)"),
    (entry("uid: 1.5"), "f.yml:4:10: services[0].uid: needs an integer or a string, not a number"),
    (entry("oomScoreAdj: '5'"), ("f.yml:4:18: services[0].oomScoreAdj: needs an integer, not a string "
                                "(remove the quotes)")),
    (entry("sysctl: {a: 1}"), ("f.yml:4:17: services[0].sysctl.a: needs a string, not an integer "
                              '(put it in quotes: "1")')),
    (entry("env: [A=1, [x]]"), "f.yml:4:16: services[0].env[1]: needs a string, not a list"),
    (entry("mounts: [{uidMappings: []}]"), ("f.yml:4:15: services[0].mounts[0]: unknown key 'uidMappings' "
                                           "(did you mean 'uidmappings'?)")),
    ("services: [{image: a}]\n", "f.yml:1:12: services[0]: 'name' is missing"),
    ("services: [{name: '', image: a}]\n", "f.yml:1:19: services[0].name: is empty"),
    ("services: [{name: a, image: ''}]\n", "f.yml:1:29: services[0].image: is empty"),
    ("services: [{name: ../x, image: a}]\n", ("f.yml:1:19: services[0].name: '../x' cannot be a name (it becomes a "
     "directory: no '..', no empty part, no control character)")),
    ("services: [5]\n", "f.yml:1:12: services[0]: needs a mapping, not an integer"),
    ("services:\n", "f.yml:1:10: services: needs a list, not nothing (remove the key, or write [])"),
    ("kernel: linuxkit/kernel\n", "f.yml:1:9: kernel: needs a mapping, not a string"),
    ("init: [a, '']\n", "f.yml:1:11: init[1]: is empty"),
    ("volumes: [{name: A}]\n", "f.yml:1:18: volumes[0].name: 'A' is not of a-z, 0-9, _ and - only"),
    ("volumes: [{readonly: true}]\n", "f.yml:1:11: volumes[0]: 'name' is missing"),
    ("volumes: [{name: a}, {name: a}]\n", "f.yml:1:22: volumes[1].name: duplicate volume name 'a' (first on line 1)"),
    ("volumes: [{name: a, platforms: [amd64]}]\n", ("f.yml:1:33: volumes[0].platforms[0]: 'amd64' is not os/arch "
                                                     "or os/arch/variant")),
    ("volumes: [{name: a, format: oci}]\n", "f.yml:1:11: volumes[0]: format 'oci' needs an image"),
    ("files: [{path: a, mode: 0644}]\n", ('f.yml:1:25: files[0].mode: needs a string, not an integer '
     '(put it in quotes: "0644")')),
    ("files: [{path: a, mode: '8', source: x}]\n", "f.yml:1:25: files[0].mode: '8' is not an octal mode such as 0644"),
    ("files: [{contents: x}]\n", "f.yml:1:9: files[0]: 'path' is missing"),
    ("files: [{path: a}]\n", ("f.yml:1:9: files[0]: nothing says what 'a' is (give one of contents, source, metadata, "
     "directory: true, symlink)")),
    ("files: [{path: a, contents: x, source: y}]\n", ("f.yml:1:9: files[0]: contents and source exclude each other "
     "(keep one)")),
    ("files: [{path: a, directory: true, contents: x}]\n", ("f.yml:1:9: files[0]: contents and directory exclude each "
     "other (keep one)")),
    ("files: [{path: a, metadata: toml}]\n", "f.yml:1:29: files[0].metadata: 'toml' is not one of yaml, json"),
    ("- a\n", "f.yml:1:1: needs a mapping of kernel, init, services, … not a list"),
    ("hello\n", "f.yml:1:1: needs a mapping of kernel, init, services, … not a string"),
    ("1: x\n", f"f.yml:1:1: unknown key '1' ({KNOWN})"),
])  # fmt: skip
def test_one_fault(text: str, expected: str) -> None:
    assert faults(text) == [expected]


def test_what_a_file_says_cannot_reach_the_terminal_as_control_characters() -> None:
    text = (
        '"\\e[31m": 1\n"k\\x07": 2\nservices: [{name: "a\\e[2J", image: "x\\0y"}]\nvolumes: [{name: "'
        + "v" * 9999
        + 'V"}]\n'
    )
    found = faults(text)
    assert len(found) == 5
    assert all(line.isprintable() and len(line) < 1000 for line in found)
    assert "NUL" in "".join(found)


def test_image_names_are_checked_by_the_caller_s_rule() -> None:
    def check(text: str) -> None:
        if " " in text:
            raise InputError("blanks in an image name", hint="remove them")

    text = "kernel: {image: 'a b'}\ninit: ['c d', e]\nvolumes: [{name: v, image: 'f g'}]\n" + entry("cwd: 'x y'")
    assert faults(text, check_reference=check) == [
        "f.yml:1:17: kernel.image: blanks in an image name (remove them)",
        "f.yml:2:8: init[0]: blanks in an image name (remove them)",
        "f.yml:3:28: volumes[0].image: blanks in an image name (remove them)",
    ]


def test_pkg_is_replaced_in_every_value() -> None:
    def package(text: str) -> str:
        if text == "./gone":
            raise InputError("./gone is not a package", hint="look for it")
        return f"docker.io/o/{text}:h"

    text = "init: ['@pkg:x', '@other']\nfiles: [{path: a, contents: '@pkg:y'}]\n"
    config = parse_config(text, substitute=package)
    assert [i.image for i in config.init] == ["docker.io/o/x:h", "@other"]
    assert config.files[0].contents == "docker.io/o/y:h"
    assert faults("init: ['@pkg:./gone']\n", substitute=package) == [
        "f.yml:1:8: init[0]: ./gone is not a package (look for it)"
    ]
    assert faults("init: ['@pkg:x']\n") == ["f.yml:1:8: init[0]: @pkg: works only in files on this machine"]
    assert parse_config("files: [{path: a, contents: '@pkg:y'}]").files[0].contents == "@pkg:y"


@given(st.dictionaries(st.sampled_from([f.name for f in schema.TOP.fields]), st.none(), max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries({k: values(f.type) for k in keys if (f := schema.TOP.field(k))})))  # fmt: skip
@settings(REPEATABLE, max_examples=60)
def test_any_document_is_a_config_or_an_input_error(document: dict[str, Any]) -> None:
    try:
        assert isinstance(parse_config(json.dumps(document, ensure_ascii=True), "f"), Config)
    except InputError as e:
        assert e.problems
        assert all(p.line and p.column and p.message for p in e.problems)
