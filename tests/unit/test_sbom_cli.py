"""The flags of build about the bill of materials, and linuxkit sbom."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from linuxkit.oci.store import Store
from support.builds import YAML, linuxkit, make_cache
from support.databases import DPKG, image_with

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_cache(tmp_path_factory.mktemp("sbom"))
    image_with(Store(root), "docker.io/t/tool:1", {"var/lib/dpkg/status": DPKG})
    return root


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "web.yml").write_text(YAML)
    return tmp_path


def built(work: Path, cache: Path, *args: str, **environment: str) -> dict[str, bytes]:
    """The files of a built image whose names have "sbom" or "json" in them, at the root."""
    linuxkit("build", "--format", "tar", "--o", "x.tar", *args, "web.yml", cwd=work, cache=cache, **environment)
    with tarfile.open(work / "x.tar") as archive:
        return {
            m.name: archive.extractfile(m).read()  # type: ignore[union-attr]
            for m in archive if m.isfile() and "/" not in m.name and m.name.endswith(".json")
        }  # fmt: skip


def date_of(document: bytes) -> str:
    return str(json.loads(document)["creationInfo"]["created"])


def test_an_sbom_is_in_every_image_unless_refused(work: Path, cache: Path) -> None:
    (name,) = built(work, cache)
    assert name == "sbom.spdx.json"
    assert built(work, cache, "--no-sbom") == {}
    assert list(built(work, cache, "--sbom-output", "/what.json")) == ["what.json"]
    made = built(work, cache, "--sbom-format", "cyclonedx")
    assert json.loads(made["sbom.cdx.json"])["bomFormat"] == "CycloneDX"
    done = linuxkit("build", "--sbom-output", "../x", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 2


def test_its_date_is_fixed_unless_asked_for(work: Path, cache: Path) -> None:
    for _ in range(2):  # the second time from the cache
        assert date_of(built(work, cache)["sbom.spdx.json"]) == "2017-04-18T16:30:00Z"
        assert date_of(built(work, cache, SOURCE_DATE_EPOCH="86400")["sbom.spdx.json"]) == "2017-04-18T16:30:00Z"
    both = built(work, cache, "--sbom-current-time", SOURCE_DATE_EPOCH="86400")
    assert date_of(both["sbom.spdx.json"]) == "1970-01-02T00:00:00Z"
    assert date_of(built(work, cache, "--sbom-current-time")["sbom.spdx.json"]) > "2024"
    for bad in ("soon", "-1", "1e9", "999999999999999"):
        done = linuxkit(
            "build", "--sbom-current-time", "web.yml", cwd=work, cache=cache, check=False, SOURCE_DATE_EPOCH=bad
        )
        assert done.returncode == 2
        assert "SOURCE_DATE_EPOCH" in done.stderr
    assert built(work, cache, "--no-sbom", SOURCE_DATE_EPOCH="soon") == {}


def test_printing_is_the_same_as_building(work: Path, cache: Path) -> None:
    inside = built(work, cache)["sbom.spdx.json"]
    assert linuxkit("sbom", "web.yml", cwd=work, cache=cache).stdout.encode() == inside
    linuxkit("sbom", "--outfile", "s.json", "web.yml", cwd=work, cache=cache)
    assert (work / "s.json").read_bytes() == inside
    names = [p["name"] for p in json.loads(inside)["packages"]]
    assert names == ["docker.io/t/kernel:1", "docker.io/t/init:1", "docker.io/t/app:1", "docker.io/t/tool:1", "bash",
                     "libc6"]  # fmt: skip


def test_one_image(work: Path, cache: Path) -> None:
    made: dict[str, Any] = json.loads(linuxkit("sbom", "t/tool:1", cwd=work, cache=cache).stdout)
    assert [p["name"] for p in made["packages"]] == ["docker.io/t/tool:1", "bash", "libc6"]
    done = linuxkit("sbom", "web.yml", "t/tool:1", cwd=work, cache=cache, check=False)
    assert (done.returncode, "web.yml is a YAML file and t/tool:1 an image" in done.stderr) == (2, True)
    done = linuxkit("sbom", "--offline", "t/nothing:1", cwd=work, cache=cache, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_reader_that_stops_early(work: Path, cache: Path) -> None:
    program = f"{sys.executable} -m linuxkit --cache {cache} sbom web.yml | head -c 10"
    done = subprocess.run(["sh", "-c", program], cwd=work, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('{\n  "spdxV', "")
