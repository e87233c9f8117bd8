"""Provenance: SLSA v1 statements about builds, on the command line."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from linuxkit.oci.store import Store
from support.builds import YAML, linuxkit, make_cache

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("provenance"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "web.yml").write_text(YAML + "  - path: etc/key\n    source: ~/secret.txt\n")
    (tmp_path / "secret.txt").write_text("k")
    return tmp_path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_statement(statement: dict[str, Any]) -> None:
    """The rules of in-toto's Statement v1, its ResourceDescriptor, and SLSA's provenance v1."""
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"]
    for subject in statement["subject"]:
        assert subject["digest"], "a subject is matched by its digest alone"
    predicate = statement["predicate"]
    assert set(predicate) == {"buildDefinition", "runDetails"}
    definition, run = predicate["buildDefinition"], predicate["runDetails"]
    assert {"buildType", "externalParameters"} <= set(definition)
    assert set(definition) <= {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    uri = re.compile(r"[a-z][a-z0-9+.-]*:\S+")
    assert uri.fullmatch(definition["buildType"])
    assert uri.fullmatch(run["builder"]["id"])
    assert all(isinstance(v, str) for v in run["builder"]["version"].values())
    for one in (*statement["subject"], *definition["resolvedDependencies"]):
        assert set(one) <= {"uri", "digest", "name", "downloadLocation", "mediaType", "content", "annotations"}
        assert {"uri", "digest", "content"} & set(one)
        assert "uri" not in one or uri.fullmatch(one["uri"])
        assert all(re.fullmatch("[0-9a-f]{64}", v) for k, v in one.get("digest", {}).items() if k == "sha256")


def test_every_input_and_output_is_named_by_digest(work: Path, cache: Path) -> None:
    def build(file: str) -> bytes:
        linuxkit("build", "--provenance", file, "web.yml", cwd=work, cache=cache)
        return (work / file).read_bytes()

    data = build("one.json")
    assert data == build("two.json"), "nothing in it depends on the clock"
    statement = json.loads(data)
    check_statement(statement)
    assert {s["name"]: s["digest"]["sha256"] for s in statement["subject"]} == {
        name: sha256(work / name) for name in ("web-kernel", "web-initrd.img", "web-cmdline")
    }
    definition = statement["predicate"]["buildDefinition"]
    found = {d.get("uri") or d["name"]: d for d in definition["resolvedDependencies"]}
    assert found["web.yml"]["digest"]["sha256"] == sha256(work / "web.yml")
    assert found["~/secret.txt"]["digest"]["sha256"] == sha256(work / "secret.txt")
    assert str(work) not in data.decode(), "no place of this machine is in it"
    images = [d for d in found.values() if d["annotations"]["role"] == "image"]
    store = Store(cache)
    names = [f"docker.io/t/{n}:1" for n in ("kernel", "init", "app", "tool")]
    assert [i["annotations"]["reference"] for i in images] == names
    tops = {name: store.find(name) for name in names}
    for image in images:
        top = tops[image["annotations"]["reference"]]
        assert top is not None
        assert top.digest[7:] in (image["digest"]["sha256"], image["annotations"].get("index", "")[7:])
    assert images[2]["annotations"]["usedAs"] == ["onboot/first"]
    assert "compress" not in definition["externalParameters"]  # it was not asked for
    versions = statement["predicate"]["runDetails"]["builder"]["version"]
    assert set(versions) >= {"linuxkit", "zlib-ng", "libzstd"}
    assert definition["externalParameters"]["configuration"] == ["web.yml"]


def test_one_stream_and_a_builder(work: Path, cache: Path) -> None:
    for args in (["--o", "x.tar"], ["--o", "-"]):
        linuxkit("build", "--provenance", "p.json", *args, "--format", "tar", "--builder-id",
                 "https://ci.example.com/1", "web.yml", cwd=work, cache=cache)  # fmt: skip
        statement = json.loads((work / "p.json").read_text())
        check_statement(statement)
        assert statement["subject"][0]["digest"]["sha256"] == sha256(work / "x.tar")
        assert statement["predicate"]["runDetails"]["builder"]["id"] == "https://ci.example.com/1"
        assert statement["subject"][0]["name"] == ("x.tar" if args[1] == "x.tar" else "web.tar")


def test_a_copy_in_the_image_speaks_of_the_plan(work: Path, cache: Path) -> None:
    import tarfile

    for name in ("a.tar", "b.tar"):
        linuxkit("build", "--provenance-output", "/provenance.json", "--provenance", f"{name}.json", "--format", "tar",
                 "--o", name, "web.yml", cwd=work, cache=cache)  # fmt: skip
    assert sha256(work / "a.tar") == sha256(work / "b.tar")
    with tarfile.open(work / "a.tar") as archive:
        member = archive.extractfile("provenance.json")
        assert member is not None
        inside = json.loads(member.read())
    check_statement(inside)
    plan = inside["predicate"]["buildDefinition"]["internalParameters"]["plan"]
    assert inside["subject"] == [{"name": "plan", "digest": {"sha256": plan[7:]}}]
    outside = json.loads((work / "a.tar.json").read_text())
    assert outside["predicate"]["buildDefinition"]["internalParameters"]["plan"] != plan
    assert outside["predicate"]["buildDefinition"]["externalParameters"]["provenance"] == "provenance.json"


@pytest.mark.parametrize("args", [
    ["--provenance", "-"], ["--provenance-output", "../x"], ["--provenance-output", "/"],
    ["--provenance", "p.json", "--builder-id", "not a uri"],
])  # fmt: skip
def test_flags_that_make_no_sense(work: Path, cache: Path, args: list[str]) -> None:
    done = linuxkit("build", *args, "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 2
    assert "hint:" in done.stderr


def test_no_provenance_and_no_image_when_one_cannot_be_written(work: Path, cache: Path) -> None:
    done = linuxkit("build", "--provenance", "no/such/folder.json", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 1
    assert "mkdir -p no/such" in done.stderr
    assert not list(work.glob("web-*"))


def test_the_lock_is_an_input(work: Path, cache: Path) -> None:
    linuxkit("lock", "--offline", "web.yml", cwd=work, cache=cache)
    linuxkit("build", "--provenance", "p.json", "web.yml", cwd=work, cache=cache)
    statement = json.loads((work / "p.json").read_text())
    check_statement(statement)
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    found = {d.get("name"): d["digest"]["sha256"] for d in inputs}
    assert found["web.lock"] == sha256(work / "web.lock")
    assert statement["predicate"]["buildDefinition"]["externalParameters"]["configuration"] == ["web.yml", "web.lock"]
