"""docs/design/test-cases.md: each of LinuxKit's test cases is in it, with tests of ours that are there, or a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/design/test-cases.md"
NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

#: LinuxKit's test/cases, by folder. A star stands for as many cases as the number behind it.
CASES = {
    "000_build/000_formats": "000_kernel+initrd 001_iso-bios 002_iso-efi 003_gcp 004_aws 006_vhd 007_vmdk 008_raw_bios "
    "009_raw_efi 010_qcow2_bios 011_kernel+squashfs 012_kernel+iso 013_iso-efi-initrd 014_kernel+erofs",
    "000_build": "001_tarheaders 020_binds 030_build_args 031_fixed_build_args 040_chained_builds "
    "041_chained_builds_with_args 042_chained_builds_with_platform 050_sbom 080_mirrors 090_validate_build_yaml "
    "091_validate_linuxkit_yaml",
    "000_build/010_reproducible": "000_tar 002_kernel+initrd 004_input_tar",
    "000_build/055_dockerfiles": "000_missing_in_yml 001_missing_in_yml_found_cli 002_found_in_yml_missing_cli "
    "003_default",
    "000_build/056_build_args": "000_build_arg_yaml 001_build_arg_cli 002_build_arg_cli_over_yaml "
    "005_build_arg_special_yaml 006_build_arg_special_cli 010_build_arg_special_multiple_yaml",
    "000_build/057_pkg_tag": "000_tag_yaml 001_tag_cli 002_tag_cli_over_yaml",
    "000_build/060_input_tar": "000_build 010_same_filename",
    "000_build/070_volumes": "000_rw_on_rw 001_ro_on_ro 002_rw_on_ro 003_ro_on_rw 004_blank 005_image 006_mount_types",
    "000_build/100_examples": "000_minimal 010_docker 020_sshd 030_redis 040_swap 050_node_exporter 060_tpm "
    "070_wireguard 080_cadvisor 090_docker_for_mac",
    "010_platforms/000_qemu": "000_run_kernel+initrd 005_run_kernel+squashfs 010_run_iso 020_run_efi 030_run_qcow_bios "
    "040_run_raw_bios 050_run_aws 060_run_raw_efi 100_container",
    "010_platforms/010_hyperkit": "000_run 005_run 010_acpi",
    "010_platforms": "020_vmware 100_equinixmetal",
    "010_platforms/110_gcp": "000_run",
    "020_kernel": "011_config 013_config 016_config 019_config 022_config 111_kmod 113_kmod 116_kmod 119_kmod 122_kmod "
    "211_tags 213_tags 216_tags 219_tags 222_tags",
    "020_kernel/200_namespace/010_veth": "*",
    "020_kernel/200_namespace/050_unix-domain": "*",
    "020_kernel/200_namespace/100_mix": "*",
    "030_security": "000_docker-bench 010_ports",
    "040_packages": "001_dummy 002_bcc 002_binfmt 002_bpftrace 003_ca-certificates 003_cgroupv2 003_containerd "
    "004_dhcpcd 007_getty-containerd 009_init_containerd 011_kmsg 012_logwrite 012_losetup 013_mkimage 019_sysctl "
    "023_wireguard 025_auth 026_buildkit_config",
    "040_packages/004_dm-crypt": "000_simple 001_luks 002_key",
    "040_packages/005_extend": "000_ext4 001_btrfs 002_xfs 003_gpt",
    "040_packages/006_format_mount": "000_auto 001_by_label 002_by_name 003_btrfs 004_xfs 005_by_device_force 006_gpt "
    "010_multiple",
    "040_packages/013_metadata": "000_cidata",
}


def rows(text: str) -> list[tuple[list[str], str]]:
    """What stands in the two columns: cases, and the words about them."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            assert len(cells) == 2, line
            found.append((re.findall(r"`(\d[^`]*)`", cells[0]), cells[1].removesuffix(" |")))
    return found


def functions_of(path: Path) -> set[str]:
    """The tests that pytest would collect from a file."""
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def faults(text: str) -> list[str]:
    """What is wrong with the page."""
    wanted = [f"{folder}/{name}" for folder, names in CASES.items() for name in names.split()]
    said: dict[str, int] = {}
    found = []
    for cases, words in rows(text):
        for case in cases:
            said[case] = said.get(case, 0) + 1
        named = NAME.findall(words)
        found += [f"{file}::{test} is not there" for file, test in named if test not in functions_of(ROOT / file)]
        files = re.findall(r"`(tests/[\w/]+\.py)`", words)
        found += [f"{file} is not there" for file in files if not (ROOT / file).is_file()]
        if not named and not re.match("no: .{20}", words):
            found.append(f"{cases}: neither a test nor a reason")
    found += [f"{case} is not in the table" for case in wanted if case not in said]
    found += [f"{case} is no case" for case in said if case not in wanted]
    return found + [f"{case} is there {count} times" for case, count in said.items() if count > 1]


def test_every_case_has_a_test_that_is_there_or_a_reason() -> None:
    assert faults(PAGE.read_text()) == []


def test_a_hole_in_the_table_is_seen() -> None:
    text = PAGE.read_text()
    assert faults(text.replace("| `000_build/050_sbom` |", "| `000_build/050_spdx` |")) == [
        "000_build/050_sbom is not in the table", "000_build/050_spdx is no case",
    ]  # fmt: skip
    wrong = text.replace("test_an_sbom_is_in_every_image_unless_refused", "test_nothing")
    assert faults(wrong) == ["tests/unit/test_sbom_cli.py::test_nothing is not there"]
    assert faults(text.replace("no: LinuxKit skips it, and the kit has no docker-bench", "no")) == [
        "['030_security/000_docker-bench']: neither a test nor a reason"
    ]  # fmt: skip


def test_reasons_are_in_the_page_about_differences() -> None:
    _, _, rest = (ROOT / "docs/compat.md").read_text().partition("## LinuxKit's test cases that are not kept\n")
    section = rest.partition("\n## ")[0]
    for cases, words in rows(PAGE.read_text()):
        if words.startswith("no: "):
            assert any(re.sub(r"^\d+_", "", case.rpartition("/")[2]) in section for case in cases), cases
