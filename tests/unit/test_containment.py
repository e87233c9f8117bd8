"""What a container gets without asking, what each key changes, and LinuxKit's mode."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from linuxkit.config.merge import merge
from linuxkit.config.model import ImageSettings, Security
from linuxkit.config.parse import parse_config, parse_settings
from linuxkit.config.render import dry_run
from linuxkit.errors import InputError
from linuxkit.oci.store import Store
from linuxkit.runtime.containment import MASKED_PATHS, READONLY_PATHS, contain
from linuxkit.runtime.seccomp import default_profile, read_profile
from support.builds import YAML, linuxkit, make_cache
from support.images import directory, make_image, member, tar_of

pytestmark = pytest.mark.unit


def allowed(profile: dict[str, Any], name: str, *arguments: int) -> bool:
    """What a filter of this profile says: rules are ors, arguments ands, as libseccomp has it."""
    for rule in profile["syscalls"]:
        if name not in rule["names"]:
            continue
        tests = {
            "SCMP_CMP_NE": lambda got, arg: got != arg["value"], "SCMP_CMP_EQ": lambda got, arg: got == arg["value"],
            "SCMP_CMP_MASKED_EQ": lambda got, arg: got & arg["value"] == arg["valueTwo"],
        }  # fmt: skip
        if all(tests[arg["op"]](arguments[arg["index"]], arg) for arg in rule.get("args", ())):
            return bool(rule["action"] == "SCMP_ACT_ALLOW")
    return False


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "riscv64"])
def test_what_the_default_profile_lets_pass(architecture: str) -> None:
    profile = default_profile(architecture, ())
    for name in ("read", "openat", "execve", "mmap", "futex", "exit_group", "getrandom", "newfstatat", "ptrace"):
        assert allowed(profile, name)
    for name in ("bpf", "keyctl", "add_key", "request_key", "io_uring_setup", "mount", "unshare", "setns", "kexec_load",
                 "userfaultfd", "perf_event_open", "open_by_handle_at", "init_module", "reboot", "pivot_root", "swapon",
                 "socketcall", "process_vm_readv", "chroot", "clock_settime", "fsopen", "move_mount"):  # fmt: skip
        assert not allowed(profile, name), name
    assert allowed(profile, "socket", 2) and allowed(profile, "socket", 16) and not allowed(profile, "socket", 40)
    assert allowed(profile, "clone", 0x01200011) and not allowed(profile, "clone", 0x10000011)
    assert allowed(profile, "personality", 0xFFFFFFFF) and not allowed(profile, "personality", 0x40000)
    (clone3,) = [rule for rule in profile["syscalls"] if "clone3" in rule["names"]]
    assert clone3["errnoRet"] == 38
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "SCMP_ARCH_X86" not in profile["architectures"]


@pytest.mark.parametrize(
    ("capability", "name"),
    [("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_ADMIN", "clone3"), ("CAP_SYS_CHROOT", "chroot"),
     ("CAP_SYS_TIME", "clock_settime"),
     ("CAP_SYS_BOOT", "reboot"), ("CAP_SYS_MODULE", "finit_module"), ("CAP_SYSLOG", "syslog"), ("CAP_BPF", "bpf"),
     ("CAP_DAC_READ_SEARCH", "open_by_handle_at"), ("CAP_SYS_PTRACE", "process_vm_readv"), ("CAP_SYS_NICE", "mbind")],
)  # fmt: skip
def test_a_call_is_allowed_to_who_has_its_capability(capability: str, name: str) -> None:
    assert allowed(default_profile("amd64", {capability}), name)
    assert not allowed(default_profile("amd64", {"CAP_CHOWN"}), name)


def test_architectures_have_calls_of_their_own() -> None:
    assert allowed(default_profile("amd64", ()), "arch_prctl")
    assert not allowed(default_profile("arm64", ()), "arch_prctl")
    assert allowed(default_profile("riscv64", ()), "riscv_flush_icache")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "no seccomp profile"), (b"[]", "no defaultAction"), (b'{"defaultAction": "kill"}', "no defaultAction"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "archMap": []}', "form of the OCI"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": []}]}', "form of the OCI"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"name": "x", "action": "SCMP_ACT_ALLOW"}]}', "form of"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": 5}', "form of"),
        (b" " * (1 << 20) + b"{}", "more than"), (b"[" * 100_000, "no seccomp profile"), (b"\xff", "no seccomp"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_profile(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_profile(text, "p.json")


def test_what_is_filled_in() -> None:
    found = contain(ImageSettings(), Security.DEFAULT)
    assert (found.masked_paths, found.readonly_paths, found.no_new_privileges) == (MASKED_PATHS, READONLY_PATHS, True)
    assert found.seccomp == "default"
    assert {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"} <= set(READONLY_PATHS)
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(MASKED_PATHS)


@pytest.mark.parametrize("keys", ["capabilities: [CAP_SYS_ADMIN]", "capabilities: [all]", "capabilities: [ALL]",
                                  "ambient: [CAP_SYS_ADMIN]", "security: linuxkit"])  # fmt: skip
def test_who_is_left_as_linuxkit_has_it(keys: str) -> None:
    settings = parse_settings(keys, "label")
    found = contain(settings, Security.DEFAULT)
    assert (found.masked_paths, found.readonly_paths, found.no_new_privileges, found.seccomp) == (None,) * 4
    again = contain(parse_settings("capabilities: [CAP_SYS_ADMIN]\nsecurity: default", "label"), Security.LINUXKIT)
    assert again.masked_paths == MASKED_PATHS


def test_each_key_by_itself_says_otherwise() -> None:
    text = "maskedPaths: []\nreadonlyPaths: [/proc/sys]\nnoNewPrivileges: false\nseccomp: unconfined"
    found = contain(parse_settings(text, "label"), Security.DEFAULT)
    assert found.masked_paths == () and found.readonly_paths == ("/proc/sys",)
    assert found.no_new_privileges is False and found.seccomp == "unconfined"


def test_of_several_files_the_last_one_that_says_it_counts() -> None:
    first, second, third = (parse_config(text) for text in ("security: linuxkit", "security: default", "files: []"))
    assert merge([first, second, third]).security is Security.DEFAULT
    assert parse_config(dry_run(first)).security is Security.LINUXKIT
    with pytest.raises(InputError) as caught:
        parse_config("security: none", "f.yml")
    assert "f.yml:1:11" in str(caught.value.problems[0])


# -- whole builds


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    root = make_cache(tmp_path)
    store = Store(root)
    make_image(store, "docker.io/t/guest:1", tar_of(directory("bin"), member("init", b"#!/bin/sh\n", mode=0o755)),
               config={"Labels": {"org.linuxkit.guest": "plan/1"}})  # fmt: skip
    make_image(store, "docker.io/t/asks:1", tar_of(member("app", b"app", mode=0o755)),
               config={"Labels": {"org.mobyproject.config": json.dumps({"seccomp": "other.json"})}})  # fmt: skip
    return root


def spec(tmp_path: Path, cache: Path, text: str, service: str = "app", **files: str) -> dict[str, Any]:
    (tmp_path / "x.yml").write_text(text)
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(content)
    done = linuxkit("build", "--format", "tar", "--o", "x.tar", "x.yml", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "x.tar", ignore_zeros=True) as tar:
        found = tar.extractfile(f"containers/services/{service}/config.json")
        assert found is not None
        made: dict[str, Any] = json.loads(found.read())
    return made


def contained(made: dict[str, Any]) -> bool:
    linux, process = made["linux"], made["process"]
    (sys_mount,) = [m for m in made["mounts"] if m["destination"] == "/sys"]
    signs = {"seccomp" in linux, "maskedPaths" in linux, "readonlyPaths" in linux, "noNewPrivileges" in process,
             "ro" in sys_mount["options"]}  # fmt: skip
    assert len(signs) == 1, signs
    return signs == {True}


OURS = YAML.replace("t/init:1", "t/guest:1")


def test_the_kits_guest_contains_and_others_are_as_linuxkit_made_them(tmp_path: Path, cache: Path) -> None:
    assert contained(spec(tmp_path, cache, OURS))
    assert not contained(spec(tmp_path, cache, YAML))
    assert contained(spec(tmp_path, cache, YAML + "security: default\n"))
    linuxkits = spec(tmp_path, cache, OURS + "security: linuxkit\n")
    assert not contained(linuxkits) and linuxkits == spec(tmp_path, cache, YAML)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OURS.replace("name: app", 'name: "web:1"'), "x.yml:10:11: services[0].name: 'web:1' cannot be the"),
        (OURS.replace("name: first", "name: my job"), "x.yml:7:11: onboot[0].name: 'my job' cannot be the name of a"),
        (OURS.replace("name: app", "name: ü"), "x.yml:10:11: services[0].name: 'ü' cannot"),
        (OURS.replace("name: app", "name: " + "a" * 201), "x.yml:10:11: services[0].name: 'aaa"),
        (OURS.replace("name: app", "name: -a").replace("name: closed", "name: .b"), "services[1].name: '.b'"),
        (OURS.replace("name: app", "name: x/a").replace("name: closed", "name: y/a"), "there is another service 'a'"),
        (OURS.replace("name: data", "name: -data"), "'-data' cannot be the name of a volume"),
    ],
)  # fmt: skip
def test_names_that_the_guest_cannot_take(tmp_path: Path, cache: Path, text: str, says: str) -> None:
    (tmp_path / "x.yml").write_text(text)
    done = linuxkit("build", "--format", "tar", "x.yml", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 2 and says in done.stderr
    # another's init reads no plan: any name that LinuxKit takes
    (tmp_path / "x.yml").write_text(text.replace("t/guest:1", "t/init:1"))
    linuxkit("build", "--format", "tar", "x.yml", cwd=tmp_path, cache=cache)


def test_one_container_can_differ(tmp_path: Path, cache: Path) -> None:
    one = OURS.replace("  - name: app\n", "  - name: app\n    security: linuxkit\n")
    assert not contained(spec(tmp_path, cache, one))
    (tmp_path / "x.tar").unlink()
    made = spec(tmp_path, cache, YAML.replace("  - name: app\n", "  - name: app\n    security: default\n"))
    assert contained(made)


PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_KILL"}]}


def test_a_profile_from_a_file(tmp_path: Path, cache: Path) -> None:
    text = OURS.replace("  - name: app\n", "  - name: app\n    seccomp: mine.json\n")
    made = spec(tmp_path, cache, text, mine=json.dumps(PROFILE))
    assert made["linux"]["seccomp"] == PROFILE
    changed = {**PROFILE, "defaultAction": "SCMP_ACT_LOG"}  # the shortcut of a rebuild sees the file change
    assert spec(tmp_path, cache, text, mine=json.dumps(changed))["linux"]["seccomp"] == changed
    (tmp_path / "mine.json").unlink()
    done = linuxkit("build", "--format", "tar", "--o", "y.tar", "x.yml", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 2 and "x.yml:11:14" in done.stderr and "there is no file 'mine.json'" in done.stderr


def test_a_label_names_no_file(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps(PROFILE))
    (tmp_path / "x.yml").write_text(OURS.replace("t/tool:1", "t/asks:1"))
    done = linuxkit("build", "--format", "tar", "x.yml", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 2 and "no profile that a label can name" in done.stderr
