"""The formats of disk files, built from YAML by the program and read by the tools they are made for."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from linuxkit.oci.store import Store
from support.bios import add_bios
from support.builds import YAML, linuxkit, make_cache
from support.efi import add_efi

pytestmark = pytest.mark.interop
DISKS = {"x.qcow2": "qcow2", "x.raw": "raw", "x.vhd": "vpc", "x.vmdk": "vmdk", "x.vhdx": "vhdx"}


def tool(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats")
    cache = make_cache(root)
    add_efi(Store(cache))
    add_bios(Store(cache))
    (root / "x.yml").write_text(YAML)
    for formats in ("raw,qcow2-bios,aws,vhd,vmdk,vhdx,ova,oci,raw-efi,qcow2-efi", "dynamic-vhd"):
        linuxkit("build", "--arch", "amd64", "--offline", "-f", formats, "x.yml", cwd=root, cache=cache)
        if formats != "dynamic-vhd":
            (root / "x.vhd").rename(root / "fixed")
    (root / "x.vhd").rename(root / "dynamic.vhd")
    (root / "fixed").rename(root / "x.vhd")
    return root


@pytest.mark.parametrize("name", [*DISKS, "dynamic.vhd", "x-efi.qcow2"])
def test_qemu_finds_the_raw_disk_in_it(made: Path, name: str) -> None:
    kind = DISKS.get(name, "qcow2" if name.endswith("qcow2") else "vpc")
    raw = made / ("x-efi.img" if name == "x-efi.qcow2" else "x.img")
    said = tool("qemu-img", "compare", "-f", "raw", "-F", kind, raw, made / name)
    assert "identical" in said and "mismatch" not in said


def test_an_ova_is_what_its_manifest_says(made: Path, tmp_path: Path) -> None:
    listed = tool("tar", "-tf", made / "x.ova").split()
    assert listed == ["x.ovf", "x.mf", "x.vmdk"]
    tool("tar", "-xf", made / "x.ova", "-C", tmp_path)
    lines = re.findall(r"SHA256\((.*)\)= ([0-9a-f]{64})\n", (tmp_path / "x.mf").read_text())
    assert [name for name, _ in lines] == ["x.ovf", "x.vmdk"]
    for name, digest in lines:
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert "identical" in tool("qemu-img", "compare", "-f", "raw", "-F", "vmdk", made / "x.img", tmp_path / "x.vmdk")


def test_skopeo_takes_the_container_image(made: Path, tmp_path: Path) -> None:
    archive = f"oci-archive:{made}/x.oci.tar"
    seen = json.loads(tool("skopeo", "inspect", archive))
    assert (seen["Architecture"], seen["Os"], len(seen["Layers"])) == ("amd64", "linux", 1)
    config = json.loads(tool("skopeo", "inspect", "--config", archive))
    assert config["config"]["Entrypoint"] == ["/bin/rc.init"]
    # the copy checks every digest; the layer is compressed on the way, as for a registry
    tool("skopeo", "copy", "--insecure-policy", "--dest-compress", archive, f"dir:{tmp_path}/copy")
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text())["layers"][0]["mediaType"].endswith("+gzip")
    tool("skopeo", "copy", "--insecure-policy", archive, f"docker-archive:{tmp_path}/docker.tar:x:latest")


def test_umoci_unpacks_the_container_image(made: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    tool("tar", "-xf", made / "x.oci.tar", "-C", layout)
    tool("umoci", "unpack", "--rootless", "--image", f"{layout}:latest", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "etc/motd").read_text() == "hello"
    assert (root / "containers/onboot/000-first/lower/bin/app").stat().st_size == 270_000
    spec = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert spec["process"]["args"] == ["/bin/rc.init"]
    shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
