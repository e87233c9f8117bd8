"""`source:` is looked for beside the YAML, as `@pkg:` is, then in the current directory, as LinuxKit does."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from support.builds import linuxkit, make_cache

pytestmark = pytest.mark.unit
YAML = "init: [t/init:1]\nfiles:\n  - {path: a, source: x}\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    make_cache(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.yml").write_text(YAML)
    return tmp_path


def built(here: Path, *args: str) -> tuple[list[bytes], str]:
    command = ("build", "--offline", "--no-preflight", "--o", "o.tar", *args)
    done = linuxkit(*command, cwd=here, cache=here / "cache")
    with tarfile.open(here / "o.tar") as tar:
        return [tar.extractfile(m).read() for m in tar if m.name in ("a", "b") and m.isreg()], done.stderr  # type: ignore


def test_beside_the_yaml_first(here: Path) -> None:
    (here / "x").write_text("current")
    assert built(here, "one/s.yml")[0] == [b"current"]
    (here / "one/x").write_text("beside")  # the rebuild shortcut may not hide it
    data, said = built(here, "one/s.yml")
    assert data == [b"beside"]
    assert "one/s.yml:3:" in said
    assert "one/x is used, not x of the current directory, which differs" in said
    (here / "x").write_text("beside")
    assert "is used" not in built(here, "one/s.yml")[1]
    assert built(here, str(here / "one/s.yml"))[0] == [b"beside"]


def test_one_name_in_two_folders_is_two_files(here: Path) -> None:
    (here / "one/x").write_text("first")
    (here / "two/x").write_text("second")
    (here / "two/s.yml").write_text("files:\n  - {path: b, source: x}\n")
    assert built(here, "one/s.yml", "two/s.yml")[0] == [b"first", b"second"]
    linuxkit("bundle", "--offline", "--arch", "amd64", "-o", "b.tar", "one/s.yml", "two/s.yml",
             cwd=here, cache=here / "cache")  # fmt: skip
    (here / "one/x").unlink()
    (here / "two/x").unlink()
    assert built(here, "--bundle", "b.tar", "--arch", "amd64")[0] == [b"first", b"second"]


def test_what_is_nowhere_is_named_with_both_places(here: Path) -> None:
    done = linuxkit("build", "--offline", "one/s.yml", cwd=here, cache=here / "cache", check=False)
    assert done.returncode == 2
    assert "one/s.yml:3:" in done.stderr
    assert "looked for one/x and x" in done.stderr
    (here / "one/s.yml").write_text(YAML.replace("x}", "/nowhere}"))
    done = linuxkit("build", "--offline", "one/s.yml", cwd=here, cache=here / "cache", check=False)
    assert "(looked for /nowhere)" in done.stderr
