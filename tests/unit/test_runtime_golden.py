"""config.json and runtime.json of the recorded builds, made from their inputs without building anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from linuxkit.config.merge import merge
from linuxkit.config.model import Config, Container, Mount
from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError
from linuxkit.oci.media import ImageConfig
from linuxkit.oci.reference import parse_reference
from linuxkit.runtime.ids import id_map
from linuxkit.runtime.json import go_json
from linuxkit.runtime.label import merge_settings, settings_from_label
from linuxkit.runtime.oci_spec import oci_spec, to_json
from linuxkit.runtime.runtime_spec import runtime_spec
from support.recordings import CASES, GOLDEN

pytestmark = pytest.mark.golden

#: recorded bugs that we do not have (docs/compat.md)
DIFFERS = {"caps-dups", "resources", "userns-mappings", "volume-mounts"}
#: errors that are not a matter of the configuration, but of images, files on disk and flags
ELSEWHERE = {
    "files-source-missing-error", "fmt-o-initrd-error", "fmt-unknown-error", "image-armonly-error",
    "image-no-tag-error", "input-tar-missing-error", "no-args-error", "merge-volumes-lost",
}  # fmt: skip
ALL = {p.stem: json.loads(p.read_text()) for p in CASES}
#: with no JSON recorded there are no containers, or the outputs were not looked into
RECORDED = [name for name, case in ALL.items() if case["rc"] == 0 and case["json"]]
REFUSED = [name for name, case in ALL.items() if case["rc"] != 0 and name not in ELSEWHERE]


def images() -> dict[str, dict[str, Any]]:
    """`name arch` → the image's configuration."""

    def blob(digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((GOLDEN / "images/blobs" / digest.replace(":", "/")).read_text())
        return found

    result = {}
    for entry in json.loads((GOLDEN / "images/index.json").read_text())["manifests"]:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        top = blob(entry["digest"])
        for manifest in top.get("manifests", [entry]):
            platform = manifest.get("platform", {}).get("architecture", "amd64")
            if platform != "unknown":
                result[f"{name} {platform}"] = blob(blob(manifest["digest"])["config"]["digest"])
    return result


def full(name: str) -> str:
    if "/" not in name:
        return f"docker.io/library/{name}"
    first = name.split("/")[0]
    return name if name.count("/") > 1 or "." in first or ":" in first else f"docker.io/{name}"


def config_of(case: dict[str, Any]) -> Config:
    names = [a for a in case["args"] if a.endswith(".yml")]
    return merge([parse_config(case["inputs"][name], name, check_reference=parse_reference) for name in names])


def bundles(config: Config) -> Iterator[tuple[str, Container]]:
    for section in ("onboot", "onshutdown"):
        for n, entry in enumerate(getattr(config, section)):
            yield f"containers/{section}/{n:03d}-{entry.name}", entry
    for entry in config.services:
        yield f"containers/services/{entry.name}", entry


def made(case: dict[str, Any]) -> dict[str, bytes]:
    """path → content, for each container of a case."""
    config = config_of(case)
    known, ids = images(), id_map(config)
    arch = case["args"][case["args"].index("--arch") + 1] if "--arch" in case["args"] else "amd64"
    first: dict[str, str] = {}
    found = {}
    for bundle, entry in bundles(config):
        inner = known[f"{full(entry.image)} {arch}"]["config"]
        image = ImageConfig(
            entrypoint=tuple(inner.get("Entrypoint", ())), cmd=tuple(inner.get("Cmd", ())),
            env=tuple(inner.get("Env", ())), working_dir=inner.get("WorkingDir", ""), labels=inner.get("Labels", {}),
        )  # fmt: skip
        settings = merge_settings(entry.settings, settings_from_label(image.labels, entry.image))
        spec = oci_spec(entry, settings, image, ids, {v.name: v for v in config.volumes})
        kind = "rootfs" if settings.readonly else "lower"
        root = first.setdefault(full(entry.image), f"/{bundle}/{kind}")
        if settings.readonly:
            mounts = [Mount(f"/{bundle}/rootfs", "", root, ("bind",))]
        else:
            mounts = [
                Mount(f"/{bundle}/tmp", "tmpfs", "tmpfs"),
                Mount(f"/{bundle}/tmp", "", "", ("remount", "private")),
                Mount(f"/{bundle}/rootfs", "overlay", "overlay", (f"lowerdir={root}", f"upperdir=/{bundle}/tmp/upper",
                                                                  f"workdir=/{bundle}/tmp/work")),
            ]  # fmt: skip
        found[f"{bundle}/config.json"] = to_json(spec)
        found[f"{bundle}/runtime.json"] = go_json(runtime_spec(settings, mounts))
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_the_specs_of_a_recorded_build(name: str) -> None:
    case = ALL[name]
    data, want = made(case), case["json"]
    found = {path: json.loads(content) for path, content in data.items()}
    assert set(found) == {path for path in want if path.endswith(("config.json", "runtime.json"))}
    if name in DIFFERS:
        assert "upstream_bug" in case
        assert found != {path: want[path] for path in found}
        return
    assert found == {path: want[path] for path in found}
    recorded = {path: entry["sha256"] for tree in case["outputs"].values() for path, entry in tree.items()
                if path in data and "sha256" in entry}  # fmt: skip
    assert {path: hashlib.sha256(data[path]).hexdigest() for path in recorded} == recorded, "same values, other bytes"


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_original_refuses_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        made(ALL[name])
    assert caught.value.problems


def test_a_volume_of_an_earlier_file_is_found() -> None:
    first = parse_config("volumes: [{name: vola}]", "a.yml")
    second = parse_config("services: [{name: app, image: a, binds: ['vola:/v']}]", "b.yml")
    config = merge([first, second])
    app = config.services[0]
    spec = oci_spec(app, app.settings, ImageConfig(), id_map(config), {v.name: v for v in config.volumes})
    assert spec["mounts"][-1]["source"] == "/containers/volumes/vola/merged"
