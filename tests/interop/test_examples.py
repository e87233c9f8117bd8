"""Every file of examples/ builds, tells how it is run, and stands in docs/examples.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from linuxkit.cluster.model import parse
from support.follow import commands
from support.system import linuxkit

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.yml"))}
CLUSTERS = {name for name, path in EXAMPLES.items() if "machines" in yaml.safe_load(path.read_text())}
#: a file that goes behind another one: that one, and what else the command line says
OVERLAYS = {
    "platform-equinixmetal.arm64": ("platform-equinixmetal", "--arch arm64"),
    "platform-rt-for-vmware": ("platform-vmware", "--format vmdk"),
}
#: packages of the source tree that `"@pkg:…"` names
PACKAGES = {
    "linuxkit-template": "kit/sysctl kit/dhcpcd kit/getty kit/nginx", "platform-rt-for-vmware": "examples/kernel-rt",
}  # fmt: skip


#: those that tests/boot/test_examples.py builds and boots
FOLLOWED = {name for name in EXAMPLES if not name.startswith(("platform-", "openstack"))
            and any(one.startswith("linuxkit run ") for one in commands(name))} - {"docker-desktop", "vsudd-containerd"}


def opening(name: str) -> str:
    """The comment that a file begins with."""
    text = EXAMPLES[name].read_text()
    return text[: text.index(next(line for line in text.splitlines() if not line.startswith("#")))]


def build_packages(name: str) -> None:
    """What has to be built before an example, as it says itself."""
    if folders := PACKAGES.get(name):
        assert f"#   linuxkit pkg build --platforms linux/amd64 {folders}\n" in opening(name)
        made = linuxkit("pkg", "build", "--platforms", "linux/amd64", *folders.split(), cwd=ROOT)
        assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - CLUSTERS - OVERLAYS.keys() - FOLLOWED))
def test_it_builds(name: str, tmp_path: Path) -> None:
    build_packages(name)
    done = linuxkit("build", "--arch", "amd64", str(EXAMPLES[name]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made_of = [f"{name}-{part}" for part in ("cmdline", "initrd.img", "kernel")]
    assert sorted(path.name for path in tmp_path.iterdir()) == made_of
    assert "console=" in (tmp_path / f"{name}-cmdline").read_text()


@pytest.mark.parametrize("name", sorted(CLUSTERS))
def test_a_cluster_is_of_machines_that_are_there(name: str) -> None:
    file = parse(EXAMPLES[name].read_bytes(), f"{name}.yml")
    for entry in file.machines:
        assert entry.prefix in EXAMPLES
        assert f"linuxkit build --dir examples examples/{entry.prefix}.yml" in opening(name)
    assert f"linuxkit run cluster examples/{name}.yml" in opening(name)


@pytest.mark.parametrize("name", sorted(OVERLAYS))
def test_a_file_that_goes_behind_another(name: str) -> None:
    first, flags = OVERLAYS[name]
    files = [str(EXAMPLES[one].relative_to(ROOT)) for one in (first, name)]
    assert f"#   linuxkit build {flags} {' '.join(files)}\n" in opening(name)
    done = linuxkit("build", "--dry-run", *flags.split(), *files, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(EXAMPLES[name].read_text())["kernel"]["cmdline"] in done.stdout


def test_a_kernel_of_ones_own(tmp_path: Path) -> None:
    name = "platform-rt-for-vmware"
    build_packages(name)
    done = linuxkit("build", "--arch", "amd64", str(EXAMPLES["platform-vmware"]), str(EXAMPLES[name]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"PREEMPT_RT" in (tmp_path / f"{name}-kernel").read_bytes()


def test_what_is_wrong_in_an_example_would_be_seen(tmp_path: Path) -> None:
    wrong = EXAMPLES["minimal"].read_text().replace("kit://crun", "kit://cron")
    (tmp_path / "x.yml").write_text(wrong)
    done = linuxkit("build", "x.yml", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'crun'" in done.stderr or "kit://crun" in done.stderr


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_it_says_how_it_is_run(name: str) -> None:
    text, file = opening(name), f"examples/{name}.yml"
    parts = [one for one in CLUSTERS if f"examples/{name}.yml" in opening(one)]
    if name not in CLUSTERS and parts:
        assert any(f"examples/{one}.yml" in text for one in parts)  # the cluster's file says it
    else:
        assert re.search(rf"^#   linuxkit (build|push|run cluster) (.* )?{re.escape(file)}\b", text, re.MULTILINE), text


def test_the_page_has_all_of_them() -> None:
    rows = re.findall(r"^\| \[([^\]]+)\.yml\]\(\.\./examples/\1\.yml\) \|", (ROOT / "docs/examples.md").read_text(),
                      re.MULTILINE)  # fmt: skip
    assert sorted(rows) == sorted(EXAMPLES)
    for row in (ROOT / "docs/examples.md").read_text().splitlines():
        if found := re.match(r"\| \[(.+)\.yml\]", row):
            for command in re.findall("`(linuxkit [^`]+)`", row):
                assert f"#   {command}" in opening(found[1]), row
