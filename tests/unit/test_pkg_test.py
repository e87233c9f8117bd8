"""Which machines a package is tested in, and what counts as passed. The machines themselves: tests/boot/test_pkg.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.api import Sources
from linuxkit.errors import InputError
from linuxkit.machine.report import State, Step
from linuxkit.testing import Case, _judged, cases, load
from support.packages import Repository
from support.packages import repository as repository

pytestmark = pytest.mark.unit
IMAGE = "docker.io/me/tool:1"


def write(folder: Path, **files: str) -> None:
    (folder / "test").mkdir()
    for name, text in files.items():
        (folder / "test" / name.replace("_", ".")).write_text(text)


def test_every_yaml_is_a_machine(tmp_path: Path) -> None:
    write(tmp_path, b_yml="", a_yaml="", c_txt="", test_sh="")
    assert [(c.name, c.file) for c in cases(tmp_path, IMAGE)] == [
        ("a", tmp_path / "test/a.yaml"), ("b", tmp_path / "test/b.yml"),
    ]  # fmt: skip


def test_a_script_runs_in_the_package_with_a_shell(tmp_path: Path) -> None:
    write(tmp_path, test_sh="true", data_txt="x")
    (tmp_path / "test/data.txt").chmod(0o755)
    (case,) = cases(tmp_path, IMAGE)
    config = load(case, Sources(tmp_path))
    (step,) = config.onboot
    assert (step.name, step.image) == ("test", IMAGE)
    assert step.settings.command == ("/test-tools/bin/busybox", "sh", "/test/test.sh")
    assert step.settings.binds_add == ("/test:/test:ro", "tools:/test-tools:ro")
    assert {f.path: f.mode for f in config.files} == {"/test/test.sh": "0644", "/test/data.txt": "0755"}
    assert [v.image for v in config.volumes] == ["kit://busybox"]


def test_without_tests_the_package_is_the_step(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, IMAGE)
    (step,) = load(case, Sources(tmp_path)).onboot
    assert (step.name, step.image, step.settings.command) == ("test", IMAGE, None)


def test_a_yaml_names_the_package_and_has_a_judge(tmp_path: Path) -> None:
    (tmp_path / "build.yml").write_text("image: tool\n")
    write(tmp_path, a_yml="onboot:\n  - {name: test, image: '@pkg:..'}\n", b_yml="services: []\n")
    good, bad = cases(tmp_path, IMAGE)
    sources = Sources(tmp_path)
    assert load(good, sources).onboot[0].image == "docker.io/linuxkit/tool:latest"
    assert load(good, sources, lambda directory: IMAGE).onboot[0].image == IMAGE
    with pytest.raises(InputError, match="needs one entry with the name 'test'"):
        load(bad, sources)
    with pytest.raises(InputError, match="no such file"):
        load(Case("x", tmp_path / "none.yml"), sources)


@pytest.mark.parametrize(("step", "why"), [
    (None, "never started"),
    (Step("onboot/000-test", State.RUNNING, 1.0), "did not end"),
    (Step("onboot/000-test", State.DONE, 1.0, status=0), ""),
    (Step("onboot/000-test", State.FAILED, 1.0, status=3), "exit status 3"),
    (Step("onboot/000-test", State.FAILED, 1.0, signal=9), "signal 9"),
    (Step("onboot/000-test", State.FAILED, 1.0, message="no such file"), "no such file"),
])  # fmt: skip
def test_the_step_is_the_verdict(step: Step | None, why: str) -> None:
    assert why in _judged(step)
    assert bool(_judged(step)) == bool(why)


def test_a_package_for_another_architecture(repository: Repository) -> None:
    repository.put({"a/build.yml": "image: a\narches: [arm64]\nfiles: []\n"})
    done = repository.pkg("test", "a", "--arch", "amd64", status=2)
    assert "is not built for amd64" in done.stderr
