"""`linuxkit build` as a user runs it: outputs, flags, the cache, and every kind of bad input."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from linuxkit.oci.store import Store
from support.builds import YAML, files_in, linuxkit, make_cache
from support.images import directory, make_image, member, symlink, tar_of

pytestmark = pytest.mark.unit


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "web.yml").write_text(YAML)
    return folder


def test_the_default_is_kernel_and_initrd(work: Path, cache: Path) -> None:
    done = linuxkit("build", "web.yml", cwd=work, cache=cache)
    assert sorted(files_in(work)) == ["web-cmdline", "web-initrd.img", "web-kernel", "web.yml"]
    assert (work / "web-kernel").read_bytes() == b"vmlinuz" * 300
    assert (work / "web-cmdline").read_bytes() == b"console=ttyS0"
    assert "built web-kernel" in done.stderr


def test_every_member_of_a_tar_says_where_it_is_from(work: Path, cache: Path) -> None:
    linuxkit("build", "--no-sbom", "--o", "x.tar", "web.yml", cwd=work, cache=cache)
    with tarfile.open(work / "x.tar") as archive:
        members = list(archive)
    assert all({"LINUXKIT.source", "LINUXKIT.location"} <= set(m.pax_headers) for m in members)
    where = {m.name: m.pax_headers["LINUXKIT.location"] for m in members}
    assert where["boot/kernel"] == "kernel"
    assert where["init"] == "init[0]"
    assert where["containers/onboot/000-first/lower/bin/app"] == "onboot[0]"
    assert where["containers/services/app/config.json"] == "services[0]"
    assert where["etc/motd"] == "files[0]"
    assert where["containers/volumes/data/tmp"] == "volume[0]"
    assert not any(name.startswith("containers/services/app/lower") for name in where)  # the first one's tree serves


def test_standard_output(work: Path, cache: Path) -> None:
    linuxkit("build", "--o", "x.tar", "web.yml", cwd=work, cache=cache)
    import subprocess
    import sys

    piped = subprocess.run([sys.executable, "-m", "linuxkit", "-q", "build", "--o", "-", "web.yml"], cwd=work,
                           env=os.environ | {"LINUXKIT_CACHE": str(cache)}, capture_output=True, check=True)
    assert piped.stdout == (work / "x.tar").read_bytes()
    assert piped.stderr == b""


def test_a_second_build_is_the_same_and_from_the_cache(work: Path, cache: Path) -> None:
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    first = files_in(work)
    for _ in range(2):
        done = linuxkit("build", "web.yml", cwd=work, cache=cache)
        assert files_in(work) == first
    total = done.stderr.split(": ")[-1].split()
    assert total[0] == total[2], done.stderr


def test_a_change_of_anything_is_seen(work: Path, cache: Path) -> None:
    """The shortcut of unchanged builds must not be taken: YAML, a source file, an image, a flag."""
    (work / "web.yml").write_text(YAML + "  - path: etc/s\n    source: s\n")
    (work / "s").write_text("one")

    def build(*flags: str) -> bytes:
        linuxkit("build", "--compress", "none", *flags, "web.yml", cwd=work, cache=cache)
        linuxkit("build", "--compress", "none", *flags, "web.yml", cwd=work, cache=cache)
        return (work / "web-initrd.img").read_bytes()

    seen = [build()]
    (work / "s").write_text("two")
    seen.append(build())
    (work / "web.yml").write_text((work / "web.yml").read_text().replace("hello", "HELLO"))
    seen.append(build())
    make_image(Store(cache), "docker.io/t/tool:1", tar_of(member("bin/new", b"new")))
    seen.append(build())
    seen.append(build("--no-sbom"))
    assert len(set(seen)) == len(seen)
    assert b"two" in seen[1]


def test_outputs_are_named_after_the_file_that_was_given(work: Path, cache: Path) -> None:
    for _ in range(2):
        linuxkit("build", "web.yml", cwd=work, cache=cache)
    (work / "other.yml").write_text(YAML)
    linuxkit("build", "other.yml", cwd=work, cache=cache)
    assert (work / "other-kernel").exists()


def test_a_damaged_cached_segment_is_made_again(work: Path, cache: Path) -> None:
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    good = files_in(work)
    for path in (cache / "derived" / "segments").iterdir():
        if not path.name.endswith(".ok"):
            path.write_bytes(path.read_bytes()[:-1])
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    assert files_in(work) == good


def test_the_plan_names_the_build(work: Path, cache: Path) -> None:
    plan = json.loads(linuxkit("build", "--plan", "web.yml", cwd=work, cache=cache).stdout)
    again = json.loads(linuxkit("build", "--plan", "web.yml", cwd=work, cache=cache).stdout)
    assert plan == again
    assert plan["digest"].startswith("sha256:")
    assert plan["kernel"]["image"]["reference"] == "docker.io/t/kernel:1"
    assert sorted(files_in(work)) == ["web.yml"]


# -- bad input: one clear message, the right exit code, nothing half-written, the cache still good


def fails(work: Path, cache: Path, *args: str, code: int, says: str, **more: object) -> str:
    before = files_in(work)
    done = linuxkit("build", *args, cwd=work, cache=cache, check=False, **more)  # type: ignore[arg-type]
    assert done.returncode == code, done.stderr
    assert says in done.stderr, done.stderr
    assert files_in(work) == before
    assert done.stderr.count("error:") == 1
    return done.stderr


def still_good(work: Path, cache: Path) -> None:
    (work / "good.yml").write_text(YAML)
    linuxkit("build", "good.yml", cwd=work, cache=cache)


def test_a_missing_image_offline(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/toll:1"))
    text = fails(work, cache, "--offline", "web.yml", code=1, says="docker.io/t/toll:1 is not in the cache")
    assert "did you mean docker.io/t/tool:1" in text
    still_good(work, cache)


def test_no_network(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "127.0.0.1:9/tool:1"))
    fails(work, cache, "web.yml", code=1, says="127.0.0.1:9")
    still_good(work, cache)


@pytest.mark.parametrize("harm", ["truncated", "corrupted"])
def test_a_damaged_layer(work: Path, cache: Path, harm: str) -> None:
    image = make_image(Store(cache), "docker.io/t/bad:1", tar_of(member("big", bytes(range(256)) * 999)))
    blob = cache / "blobs" / "sha256" / image.layers[0].digest[7:]
    data = blob.read_bytes()
    blob.write_bytes(data[: len(data) // 2] if harm == "truncated" else data[:200] + b"\xff" + data[201:])
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/bad:1"))
    text = fails(work, cache, "web.yml", code=1, says=image.layers[0].digest)
    assert "t/bad:1 (linux/amd64): " in text and "layer" in text
    still_good(work, cache)


@pytest.mark.parametrize(
    "members",
    [
        [member("../out", b"x")],
        [symlink("a", "/etc"), member("a/passwd", b"x")],
    ],
    ids=["escaping", "through a link"],
)
def test_a_layer_that_leads_out_of_its_root(work: Path, cache: Path, members: list) -> None:
    make_image(Store(cache), "docker.io/t/bad:1", tar_of(*members))
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/bad:1"))
    fails(work, cache, "web.yml", code=1, says="layer")
    still_good(work, cache)


def test_a_symlink_loop_is_only_text(work: Path, cache: Path) -> None:
    """Nothing here follows links, so a loop in an image is carried as it is."""
    make_image(Store(cache), "docker.io/t/loop:1", tar_of(symlink("a", "b"), symlink("b", "a")))
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/loop:1"))
    linuxkit("build", "--o", "x.tar", "web.yml", cwd=work, cache=cache)
    with tarfile.open(work / "x.tar") as archive:
        assert archive.getmember("containers/services/closed/rootfs/a").linkname == "b"


def test_whiteouts_are_read_as_linuxkit_does_or_as_the_specification_says(work: Path, cache: Path) -> None:
    lower = tar_of(directory("d"), member("d/old", b"x"))
    upper = tar_of(member("d/.wh..wh..opq"), member("d/new", b"y"))
    make_image(Store(cache), "docker.io/t/opaque:1", lower, upper)
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/opaque:1"))
    for flags, kept, warned in (((), True, True), (("--whiteouts", "oci"), False, False)):
        done = linuxkit("build", *flags, "--o", "x.tar", "web.yml", cwd=work, cache=cache)
        with tarfile.open(work / "x.tar") as archive:
            names = archive.getnames()
        assert "containers/services/closed/rootfs/d/new" in names
        assert ("containers/services/closed/rootfs/d/old" in names) is kept
        assert ("warning: t/opaque:1" in done.stderr or "warning: docker.io/t/opaque:1" in done.stderr) is warned


def test_a_rebuild_repeats_its_warnings(work: Path, cache: Path) -> None:
    lower = tar_of(directory("d"), member("d/old", b"x"))
    make_image(Store(cache), "docker.io/t/opaque:1", lower, tar_of(member("d/.wh..wh..opq"), member("d/new", b"y")))
    text = YAML.replace("t/tool:1", "t/opaque:1").replace('mode: "0644"', 'mode: "0600"')
    (work / "web.yml").write_text(text)

    def warnings(*flags: str) -> list[str]:
        done = linuxkit(*flags, "build", "--format", "tar", "web.yml", cwd=work, cache=cache)
        return [line for line in done.stderr.splitlines() if line.startswith("warning: ")]

    first = warnings()
    assert len(first) == 2 and "LinuxKit reads unlike the OCI spec" in "".join(first)
    assert warnings() == first  # the shortcut
    (work / "web.yml").write_text(f"{text}# changed\n")
    assert warnings() == first  # planned again, and encoded parts taken from the cache
    shutil.rmtree(cache / "derived" / "notes")
    assert len(warnings()) == 2  # the shortcut remembers by itself
    assert warnings("--quiet") == []
    (work / "web.yml").write_text(YAML)
    assert warnings() == [] == warnings()


def test_a_hard_link_loop(work: Path, cache: Path) -> None:
    loop = [member(n, type=tarfile.LNKTYPE, linkname=t) for n, t in (("a", "b"), ("b", "a"))]
    make_image(Store(cache), "docker.io/t/bad:1", tar_of(*loop))
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/bad:1"))
    fails(work, cache, "web.yml", code=1, says="points at")
    still_good(work, cache)


def test_two_services_of_one_name(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(YAML.replace("name: closed", "name: app"))
    fails(work, cache, "web.yml", code=2, says="duplicate service name")


def test_a_source_that_is_not_there(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(YAML + "  - path: etc/s\n    source: nowhere\n")
    fails(work, cache, "web.yml", code=2, says="nowhere does not exist")


def test_a_directory_that_is_not_there(work: Path, cache: Path) -> None:
    fails(work, cache, "--dir", "no/such", "web.yml", code=1, says="mkdir -p no/such")


def test_an_unwritable_directory(work: Path, cache: Path) -> None:
    """Under /proc nobody may make files, root included."""
    fails(work, cache, "--dir", "/proc/sys", "web.yml", code=1, says="cannot write /proc/sys/web-kernel")


def test_a_full_disk_leaves_what_was_there(work: Path, cache: Path) -> None:
    linuxkit("build", "web.yml", cwd=work, cache=cache)

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    fails(work, cache, "web.yml", code=1, says="cannot write", preexec_fn=no_room)
    still_good(work, cache)


def test_a_full_cache(work: Path, cache: Path) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    fails(work, cache, "web.yml", code=1, says=str(cache), preexec_fn=no_room)
    still_good(work, cache)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--format", "tarr"], "did you mean tar"),
        (["--format", "tar,kernel+initrd"], "must be the only one"),
        (["--o", "x", "--dir", "."], "--o and --dir"),
        (["--o", "x", "--name", "n"], "--o and --name"),
        (["--o", "x", "--format", "kernel+initrd"], "--o is for a format that is one stream"),
        (["--compress", "brotli"], "unknown compression"),
        (["--level", "77"], "no level 77"),
        (["--arch", "vax"], "unknown architecture"),
        (["--pull", "--offline"], "--pull and --offline"),
        (["--input-tar", "web.yml", "--pull"], "cannot use --input-tar and --pull together"),
    ],
)
def test_flags_that_do_not_go_together(work: Path, cache: Path, flags: list[str], says: str) -> None:
    fails(work, cache, *flags, "web.yml", code=2, says=says)


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    from linuxkit.outputs.files import Outputs

    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), Outputs() as outputs:
        for name in ("a", "b"):
            with outputs.open(tmp_path / name, "tar") as out:
                out.write(b"new")
                if name == "b":
                    raise KeyboardInterrupt
    assert files_in(tmp_path) == {"a": b"old"}


def test_pieces_are_copied_from_their_offsets(tmp_path: Path) -> None:
    from linuxkit.encode.pieces import Piece, literal
    from linuxkit.outputs.pieces import put

    (tmp_path / "in").write_bytes(b"0123456789")
    with open(tmp_path / "out", "w+b") as out:
        put([literal(b"<"), Piece(3, str(tmp_path / "in"), 4), literal(b">"), Piece(10, str(tmp_path / "in"))], out)
    assert (tmp_path / "out").read_bytes() == b"<456>0123456789"
    into = io.BytesIO()
    put([Piece(2, str(tmp_path / "in"), 8), literal(b"!")], into)
    assert into.getvalue() == b"89!"


def test_a_failing_rename_undoes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from linuxkit.errors import HostError
    from linuxkit.outputs.files import Outputs

    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    rename = Path.rename

    def broken(self: Path, to: Path) -> Path:
        if Path(to).name == "b" and self.name.startswith(".tmp"):
            raise OSError(5, "input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(HostError, match="cannot write"), Outputs() as outputs:
        for name in ("a", "b", "c"):
            with outputs.open(tmp_path / name, "tar") as out:
                out.write(b"new")
    assert files_in(tmp_path) == {"a": b"old", "b": b"old"}


# -- links and directories over the parts


MERGED_USR = tar_of(directory("usr"), directory("usr/bin"), directory("usr/lib"), symlink("lib", "usr/lib"),
                    symlink("bin", "usr/bin"), member("usr/bin/sh", b"shell", mode=0o755),
                    member("init", b"#!/bin/sh\n", mode=0o755))  # fmt: skip
THROUGH = YAML.replace("etc/motd", "lib/firmware/x")


@pytest.mark.parametrize("format_", ["tar", "kernel+initrd", "kernel+squashfs", "kernel+iso"])
def test_modules_and_files_go_where_the_links_of_an_init_image_lead(work: Path, cache: Path, format_: str) -> None:
    make_image(Store(cache), "docker.io/t/init:1", MERGED_USR)
    (work / "web.yml").write_text(THROUGH)
    plain = [] if format_ == "tar" else ["--compress", "none"]
    linuxkit("build", "--no-preflight", *plain, "--format", format_, "web.yml", cwd=work, cache=cache)
    out = work / "out"
    out.mkdir()
    unpack = {
        "tar": ["tar", "-xf", "../web.tar"], "kernel+initrd": ["cpio", "-idmu", "--quiet"],
        "kernel+squashfs": ["unsquashfs", "-q", "-n", "-f", "-d", ".", "../web-squashfs.img"],
        "kernel+iso": ["xorriso", "-osirrox", "on", "-indev", "../web.iso", "-extract", "/", "."],
    }[format_]  # fmt: skip
    if shutil.which(unpack[0]) is None:
        pytest.skip(f"{unpack[0]} is not installed")
    for data in archives((work / "web-initrd.img").read_bytes()) if unpack[0] == "cpio" else [b""]:
        subprocess.run(unpack, cwd=out, check=True, capture_output=True, input=data)
    assert (out / "lib").readlink() == Path("usr/lib")
    assert (out / "usr/lib/modules/a.ko").read_bytes() == b"module" * 500
    assert (out / "usr/lib/firmware/x").read_text() == "hello"


def archives(data: bytes) -> Iterator[bytes]:
    """The cpio archives of an initrd that is not compressed: one after the other, as Linux unpacks them."""
    at = 0
    while at < len(data):
        end = data.index(b"TRAILER!!!", at) + 11
        end += -end % 512
        yield data[at:end]
        at = end


def test_a_directory_of_an_image_that_files_changes_is_told_with_its_line(work: Path, cache: Path) -> None:
    assert "warning" not in linuxkit("build", "web.yml", cwd=work, cache=cache).stderr
    (work / "web.yml").write_text(YAML.replace('mode: "0644"', 'mode: "0600"'))
    done = linuxkit("build", "--format", "tar", "web.yml", cwd=work, cache=cache)
    assert "warning: web.yml:18:" in done.stderr
    assert "files[0]: /etc gets mode 0700, where init[0] has 0755" in done.stderr


def test_two_names_of_one_image_share_its_tree(work: Path, cache: Path) -> None:
    trees = "    image: t/app:1\nservices:\n  - name: app\n    image: {}\n"
    made = {}
    for name in ("t/app:1", "docker.io/t/app:1", "t/tool:1"):
        (work / "web.yml").write_text(YAML.replace(trees.format("t/app:1"), trees.format(name)))
        linuxkit("build", "--format", "tar", "--no-sbom", "web.yml", cwd=work, cache=cache)
        with tarfile.open(work / "web.tar") as tar:
            paths = [one.name for one in tar if one.name.startswith("containers/")]
        made[name] = {path for path in paths if path.endswith(("bin/app", "bin/tool"))}
    first = "containers/onboot/000-first/lower/bin/app"
    assert made["docker.io/t/app:1"] == made["t/app:1"] == {first, "containers/services/closed/rootfs/bin/tool"}
    assert made["t/tool:1"] == {first, "containers/services/app/lower/bin/tool"}


MOUNTS = """\
    readonly: true
    binds: ["/etc/motd:/etc/motd:ro", "/var/lib/x:/data/deep", "/run/s.sock:/run/s.sock", "/dev:/dev", "/etc:/run2/etc"]
    tmpfs: [/tmp, /run/inside, "/caps"]
    mounts:
      - {type: bind, source: /bin/sh, destination: /usr/bin/tool, options: [bind]}
      - {type: tmpfs, source: tmpfs, destination: /run/inside/deeper}
"""


@pytest.mark.parametrize("shared", [False, True])
def test_mount_points_that_a_read_only_image_lacks_are_made(work: Path, cache: Path, shared: bool) -> None:
    """As Docker makes them; what the image has, a file for a directory or not, stays as it is."""
    image = [directory("run3"), symlink("run2", "run3"), member("caps", b"c"), directory("data", 0o700)]
    make_image(Store(cache), "docker.io/t/tool:1", tar_of(*image))
    _guest(cache)
    text = YAML.replace("    readonly: true\n", MOUNTS)
    root = "containers/services/closed/rootfs"
    if shared:
        text = text.replace("    image: t/app:1\nservices", "    image: t/tool:1\nservices")
        root = "containers/onboot/000-first/lower"
    (work / "web.yml").write_text(text)
    linuxkit("build", "--format", "tar", "web.yml", cwd=work, cache=cache)
    with tarfile.open(work / "web.tar") as tar:
        found = {one.name.removeprefix(f"{root}/"): (one.isfile(), one.mode, one.size) for one in tar}
    linuxkit("build", "--compress", "none", "--no-preflight", "web.yml", cwd=work, cache=cache)
    out = work / "out"
    out.mkdir()
    for data in archives((work / "web-initrd.img").read_bytes()):
        subprocess.run(["cpio", "-idmu", "--quiet"], cwd=out, check=True, capture_output=True, input=data)
    for path, wanted in {
        "data/deep": (False, 0o755, 0), "data": (False, 0o700, 0), "run/s.sock": (True, 0o644, 0),
        "tmp": (False, 0o755, 0), "run3/etc": (False, 0o755, 0), "usr/bin/tool": (True, 0o644, 0),
        "caps": (True, 0o644, 1), "etc/motd": (True, 0o644, 0), "run/inside": (False, 0o755, 0),
    }.items():  # fmt: skip
        assert found[path] == wanted or (path == "caps" and found[path][0]), path
        there = out / root / path
        assert (there.is_file(), there.stat().st_size if there.is_file() else 0) == (wanted[0], wanted[2]), path
    assert "run/inside/deeper" not in found
    assert (out / root / "run2").readlink() == Path("run3")


def _guest(cache: Path) -> None:
    """An init image that brings the kit's guest."""
    tar = tar_of(directory("bin"), member("bin/sh", b"shell", mode=0o755), member("init", b"#!/bin/sh\n", mode=0o755))
    make_image(Store(cache), "docker.io/t/init:1", tar, config={"Labels": {"org.linuxkit.guest": "plan/1"}})


@pytest.mark.parametrize("guest", [False, True])
def test_others_get_no_mount_points(work: Path, cache: Path, guest: bool) -> None:
    """A container that can be written to gets them at boot; LinuxKit's own init gets LinuxKit's tree."""
    if guest:
        _guest(cache)
    mounts = MOUNTS.replace("true", "false") if guest else MOUNTS
    (work / "web.yml").write_text(YAML.replace("    readonly: true\n", mounts))
    linuxkit("build", "--format", "tar", "web.yml", cwd=work, cache=cache)
    with tarfile.open(work / "web.tar") as tar:
        assert not [name for name in tar.getnames() if name.endswith("data/deep")]


ACL = "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\4\0\4\0\xff\xff\xff\xff\x20\0\4\0\xff\xff\xff\xff"


@pytest.mark.parametrize(("format_", "warned"), [
    ("tar", False), ("oci", False), ("kernel+erofs", False), ("kernel+initrd", True), ("kernel+squashfs", True),
    ("kernel+iso", True), ("kernel+erofs,kernel+squashfs", True),
])  # fmt: skip
def test_access_control_lists_are_kept_or_left_out_with_one_warning(
    work: Path, cache: Path, format_: str, warned: bool
) -> None:
    fields = {"SCHILY.xattr.system.posix_acl_access": ACL, "SCHILY.xattr.user.x": "y"}
    layer = tar_of(member("a", pax_headers=fields), member("b", pax_headers=fields))
    make_image(Store(cache), "docker.io/t/tool:1", layer)
    for name in ("web", "again"):
        done = linuxkit("build", "--format", format_, "--name", name, "web.yml", cwd=work, cache=cache)
        said = "warning: 2 files have access control lists, the first is /a of docker.io/t/tool:1"
        assert done.stderr.count(said) == warned
        assert done.stderr.count("warning") == warned
