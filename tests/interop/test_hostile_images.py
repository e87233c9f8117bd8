"""Images that attack: each is built by the whole program, as oci:DIR and from the cache, with a watch on what it does.

No case may write or read outside of its folders, hang, take more than MEMORY, or end in a traceback. What an image has
a right to (a symlink that leads nowhere, a device) is allowed to build.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.images import directory, hardlink, member, symlink, tar_of

pytestmark = pytest.mark.interop
MEMORY = 400 << 20  # bytes of address space that is really used, at the peak
SECONDS = 180  # for a hang; the slowest takes 30 on an idle machine
SECRET = b"the host's own secret"
OCI = "application/vnd.oci.image"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Layout:
    """An OCI layout under construction."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def blob(self, data: bytes, kind: str) -> dict[str, object]:
        self.blobs[digest(data)] = data
        return {"mediaType": f"{OCI}.{kind}", "digest": digest(data), "size": len(data)}

    def image(self, *layers: dict[str, object], diff_ids: list[str], **config: object) -> None:
        document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}} | config
        configuration = self.blob(json.dumps(document).encode(), "config.v1+json")
        self.top({"schemaVersion": 2, "config": configuration, "layers": list(layers)})

    def top(self, manifest: object) -> None:
        self.index([self.blob(json.dumps(manifest).encode(), "manifest.v1+json")])

    def index(self, manifests: list[dict[str, object]]) -> None:
        for entry in manifests:
            entry["annotations"] = {"org.opencontainers.image.ref.name": "docker.io/evil/image:1"}
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()

    def write(self, root: Path) -> None:
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        for name, data in self.blobs.items():
            (root / "blobs" / "sha256" / name[7:]).write_bytes(data)
        for name, data in self.files.items():
            (root / name).write_bytes(data)
        for name, target in self.links.items():
            path = root / name
            path.unlink(missing_ok=True)
            path.symlink_to(target)


def of_layer(tar: bytes, *, packed: bytes | None = None) -> Layout:
    layout = Layout()
    layer = layout.blob(gzip.compress(tar, mtime=0) if packed is None else packed, "layer.v1.tar+gzip")
    layout.image(layer, diff_ids=[digest(tar)])
    return layout


def members(*items: tuple[tarfile.TarInfo, bytes]) -> Callable[[Path], Layout]:
    return lambda outside: of_layer(tar_of(*items))


def through_a_link(outside: Path) -> Layout:
    return of_layer(tar_of(symlink("evil", str(outside)), member("evil/written", b"!"),
                           symlink("up", "../" * 20 + str(outside)[1:]), member("up/written", b"!")))  # fmt: skip


def over_two_layers(outside: Path) -> Layout:
    layout = Layout()
    tars = [tar_of(symlink("evil", str(outside))), tar_of(member("evil/written", b"!"))]
    layers = [layout.blob(gzip.compress(tar, mtime=0), "layer.v1.tar+gzip") for tar in tars]
    layout.image(*layers, diff_ids=[digest(tar) for tar in tars])
    return layout


def absolute(outside: Path) -> Layout:
    return of_layer(tar_of(member(f"{outside}/written", b"!")))


def climbing(outside: Path) -> Layout:
    return of_layer(tar_of(member("../" * 30 + f"{outside}/written", b"!")))


def hard_link_out(outside: Path) -> Layout:
    return of_layer(tar_of(hardlink("stolen", "../" * 30 + f"{outside}/secret"[1:])))


def symlink_to_secret(outside: Path) -> Layout:
    return of_layer(tar_of(symlink("stolen", f"{outside}/secret"), hardlink("again", "stolen")))


def path_as_digest(outside: Path) -> Layout:
    layout = Layout()
    layer = {
        "mediaType": f"{OCI}.layer.v1.tar",
        "digest": "sha256:" + "../" * 20 + f"{outside}/secret",
        "size": len(SECRET),
    }
    layout.image(layer, diff_ids=[digest(SECRET)])
    return layout


def blob_is_a_link(outside: Path) -> Layout:
    layout = of_layer(tar_of(member("a", b"a")))
    (manifest,) = json.loads(layout.files["index.json"])["manifests"]
    layer = json.loads(layout.blobs[manifest["digest"]])["layers"][0]["digest"]
    (outside / "layer").write_bytes(layout.blobs.pop(layer))
    layout.links[f"blobs/sha256/{layer[7:]}"] = str(outside / "layer")
    return layout


def index_is_a_link(outside: Path) -> Layout:
    layout = of_layer(tar_of(member("a", b"a")))
    (outside / "index.json").write_bytes(layout.files.pop("index.json"))
    layout.links["index.json"] = str(outside / "index.json")
    return layout


def bomb(outside: Path) -> Layout:
    """1.5 GiB of zeros in 1.5 MB."""
    packer, hasher = io.BytesIO(), hashlib.sha256()
    with gzip.GzipFile(fileobj=packer, mode="wb", mtime=0, compresslevel=1) as out:
        info = tarfile.TarInfo("zeros")
        info.size = 3 << 29
        head = info.tobuf()
        out.write(head)
        hasher.update(head)
        block = bytes(16 << 20)
        for _ in range(info.size // len(block)):
            out.write(block)
    layout = Layout()
    layout.image(
        layout.blob(packer.getvalue(), "layer.v1.tar+gzip"), diff_ids=[hasher.digest().hex().join(["sha256:", ""])]
    )
    return layout


def zstd_window(outside: Path) -> Layout:
    """A frame that asks for a window of 2 GiB."""
    tar = tar_of(member("a", b"a"))
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b0000_0000, (31 - 10) << 3]) + (len(tar) << 3 | 1).to_bytes(3, "little") + tar
    return of_layer(tar, packed=frame)


def tail_after_gzip(outside: Path) -> Layout:
    tar = tar_of(member("a", b"a"))
    return of_layer(tar, packed=gzip.compress(tar, mtime=0) + b"#!/bin/sh\nrm -rf /\n" * 100)


def header_without_end(outside: Path) -> Layout:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 40
    return of_layer(info.tobuf() + b"0" * 4096)


def pax(body: bytes) -> Callable[[Path], Layout]:
    def make(outside: Path) -> Layout:
        info = tarfile.TarInfo("PaxHeader")
        info.type, info.size = b"x", len(body)
        return of_layer(info.tobuf() + body.ljust(-(-len(body) // 512) * 512, b"\0") + tar_of(member("a", b"a")))

    return make


def many_members(outside: Path) -> Layout:
    one = tarfile.TarInfo("d/x").tobuf()
    return of_layer(one * 510_000)


def deep(outside: Path) -> Layout:
    return of_layer(tar_of(member("d/" * 2000 + "x", b"deep")))


def deep_json(outside: Path) -> Layout:
    layout = Layout()
    layout.index([layout.blob(b"[" * 1_000_000, "manifest.v1+json")])
    return layout


def huge_manifest(outside: Path) -> Layout:
    layout = Layout()
    layout.top({"schemaVersion": 2, "x": "y" * (64 << 20)})
    return layout


def index_in_a_circle(outside: Path) -> Layout:
    """Indexes that nest without an end are cut off; a true circle would need a hash collision."""
    layout = Layout()
    entry = layout.blob(b"{}", "manifest.v1+json")
    for _ in range(200):
        entry = layout.blob(json.dumps({"schemaVersion": 2, "manifests": [entry] * 3}).encode(), "index.v1+json")
    layout.index([entry])
    return layout


def many_layers(outside: Path) -> Layout:
    layout = Layout()
    tar = tar_of(member("a", b"a"))
    layer = layout.blob(gzip.compress(tar, mtime=0), "layer.v1.tar+gzip")
    layout.image(*[layer] * 20_000, diff_ids=[digest(tar)] * 20_000)
    return layout


def wrong_types(outside: Path) -> Layout:
    layout = Layout()
    tar = tar_of(member("a", b"a"))
    layer = layout.blob(gzip.compress(tar, mtime=0), "layer.v1.tar+gzip")
    layout.image(layer, diff_ids=[digest(tar)], config={"Env": 7, "Cmd": {"a": 1}, "Labels": ["x"], "User": [0]})
    return layout


def hostile_label(outside: Path) -> Layout:
    layout = Layout()
    tar = tar_of(member("a", b"a"))
    layer = layout.blob(gzip.compress(tar, mtime=0), "layer.v1.tar+gzip")
    label = json.dumps({"binds": ["/" + "../" * 40 + "etc:/x"], "mounts": [{"type": "bind", "source": str(outside)}],
                        "capabilities": ["all"] * 10_000})  # fmt: skip
    layout.image(layer, diff_ids=[digest(tar)], config={"Labels": {"org.mobyproject.config": label}})
    return layout


def other_bytes(outside: Path) -> Layout:
    layout = of_layer(tar_of(member("a", b"a" * 1000)))
    largest = max(layout.blobs, key=lambda d: len(layout.blobs[d]))
    layout.blobs[largest] = layout.blobs[largest][:-1] + b"?"
    return layout


CASES: dict[str, tuple[Callable[[Path], Layout], bool | None]] = {  # name → (image, does it build; None: either way)
    "a link named .": (members(symlink(".", "/tmp"), member("./x", b"!")), False),
    "a link named /": (members(symlink("/", "/tmp"), member("x", b"!")), False),
    "a file named ..": (members(member("..", b"!")), False),
    "writing through a link": (through_a_link, None),
    "writing through a link of a lower layer": (over_two_layers, None),
    "an absolute path": (absolute, None),
    "climbing up": (climbing, False),
    "a hard link out": (hard_link_out, False),
    "a symlink out": (symlink_to_secret, True),
    "a path as digest": (path_as_digest, False),
    "a blob that is a link": (blob_is_a_link, False),
    "an index that is a link": (index_is_a_link, False),
    "a bomb": (bomb, False),
    "a zstd window of 2 GiB": (zstd_window, False),
    "bytes after the end": (tail_after_gzip, False),
    "a name of 300 bytes": (members(member("n" * 300, b"!")), False),
    "a name of 70000 bytes": (members(member("n" * 70_000, b"!")), False),
    "an attribute of 1 MB": (members(member("a", pax_headers={"SCHILY.xattr.user.x": "y" * 1_000_000})), False),
    "a record of a wrong length": (pax(b"99999 path=a\n"), False),
    "a record of no length": (pax(b"-1 path=a\n0 size=9\n"), False),
    "a header without end": (header_without_end, False),
    "an almost opaque name": (members(directory("d"), member("d/.wh..wh..opq"), member("e/.wh..wh.opq")), None),
    "whiteouts of . and ..": (members(member(".wh.."), member(".wh..."), member("d/.wh.")), None),
    "half a million members": (many_members, False),
    "two thousand levels": (deep, None),
    "JSON in a million brackets": (deep_json, False),
    "a manifest of 64 MB": (huge_manifest, False),
    "indexes without an end": (index_in_a_circle, False),
    "twenty thousand layers": (many_layers, False),
    "other types than promised": (wrong_types, False),
    "a label that asks for everything": (hostile_label, None),
    "other bytes than the digest": (other_bytes, False),
    "devices and set-id": (members(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
                                   member("su", b"x", mode=0o6755), member("pipe", type=tarfile.FIFOTYPE)), True),
    "links in a circle": (members(symlink("a", "b"), symlink("b", "a")), True),
}  # fmt: skip


#: Those are built once only.
SLOW = ("half a million members", "a bomb")


def everything_in(folder: Path) -> dict[str, tuple[int, float, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (info.st_mode, info.st_mtime, content)
    return found


#: What a parent had counts as its child's peak, and a process that runs tests has much; so a small one is between.
LAUNCH = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))
pid = os.fork()
if pid == 0:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    os.execv(sys.executable, [sys.executable, "-m", "linuxkit", *sys.argv[2:]])
_, status, usage = os.wait4(pid, 0)
with open(int(sys.argv[1]), "w") as out:
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, file=out)
"""


def run(work: Path, *words: str) -> tuple[int, str, int]:
    """(status, what it said, peak memory in bytes) of the program, which has SECONDS and twice MEMORY to try."""
    reading, writing = os.pipe()
    with open(work / "said", "w+b") as said, open(reading) as result:
        command = [sys.executable, "-c", LAUNCH, str(writing), "--cache", str(work / "cache"), *words]
        child = subprocess.Popen(
            command, cwd=work, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True,
            pass_fds=[writing], env={"PATH": "/usr/bin:/bin", "HOME": str(work / "home")},
        )  # fmt: skip
        timer = threading.Timer(SECONDS, os.killpg, (child.pid, signal.SIGKILL))
        timer.start()
        child.wait()
        timer.cancel()
        os.close(writing)
        said.seek(0)
        text, told = said.read().decode(errors="replace"), result.read().split()
    assert child.returncode == 0, f"still at it after {SECONDS} s: {text}"
    status, peak = map(int, told)
    return status, text, peak


@pytest.mark.parametrize("name", CASES)
def test_it_does_no_harm(name: str, tmp_path: Path) -> None:
    make, builds = CASES[name]
    outside, work = tmp_path / "outside", tmp_path / "work"
    outside.mkdir()
    (work / "home").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    layout = make(outside)
    layout.write(work / "layout")
    before = everything_in(outside)
    yaml = "init:\n  - {image}\nonboot:\n  - name: evil\n    image: {image}\n    command: [x]\n"
    (work / "x.yml").write_text(yaml.format(image="oci:layout"))
    archive = work / "layout.tar"
    with tarfile.open(archive, "w") as out:
        out.add(work / "layout", arcname=".")
    (work / "y.yml").write_text(yaml.format(image="evil/image:1"))
    ends = []
    commands = [
        ["build", "--offline", "--format", "tar", "x.yml"],
        ["cache", "import", "layout.tar"],
        ["build", "--offline", "--format", "tar", "y.yml"],
        ["sbom", "x.yml"],
        ["cache", "verify"],
    ]
    for words in commands[:1] if name in SLOW else commands:
        status, said, memory = run(work, *words)
        assert status in (0, 1, 2), (words, status, said)
        assert "Traceback" not in said, (words, said)
        assert len(said) < 4000, (words, said[:2000])
        assert memory < MEMORY, (words, memory >> 20)
        ends.append(status)
    assert everything_in(outside) == before
    if builds is not None:
        assert (ends[0] == 0) is builds, (ends, said)
    for made in work.glob("*.tar"):
        if made != archive:
            assert SECRET not in made.read_bytes()
    strange = {p.name for p in work.iterdir()} - {
        "home",
        "layout",
        "layout.tar",
        "x.yml",
        "y.yml",
        "x.tar",
        "y.tar",
        "cache",
        "said",
    }
    assert not strange
    assert not list((work / "home").rglob("*"))


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    """The negative control: extracting the same layers by path does harm, and the watch sees it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    before = everything_in(outside)
    for n, make in enumerate((through_a_link, climbing)):
        layout = make(outside)
        blob = max(layout.blobs.values(), key=lambda data: data[:2] == b"\x1f\x8b")
        into = tmp_path / f"root{n}"
        into.mkdir()
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            archive.extractall(into, filter="fully_trusted")
        assert everything_in(outside) != before
        (outside / "written").unlink()
