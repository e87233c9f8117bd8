"""Recipes: the kit's own are read and make sense; wrong ones are refused with a position."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from linuxkit.data import data_dir
from linuxkit.entry import Kind, read_all
from linuxkit.errors import InputError
from linuxkit.oci.store import Store
from linuxkit.packages.image import ordered, own
from linuxkit.packages.kit import Kit
from linuxkit.packages.recipe import load, parse

pytestmark = pytest.mark.unit
FOLDERS = sorted(p.parent for p in data_dir("kit").glob("*/build.yml"))
HEAD = "image: x\ndescription: a test\n"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.name))
def test_the_kits_recipes_are_read(folder: Path) -> None:
    recipe = load(folder)
    assert recipe.name == folder.name
    assert recipe.description


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.name))
def test_the_kits_labels_are_what_a_yaml_may_say(folder: Path) -> None:
    from linuxkit.runtime.label import settings_from_label

    recipe = load(folder)
    settings_from_label({"org.mobyproject.config": recipe.config} if recipe.config else {}, recipe.name)
    if not recipe.config or recipe.config == "{}":
        bases = ("busybox", "ca-certificates", "cni-plugins", "containerd", "crun", "firmware", "init", "kernel",
                 "kernel-metal", "kernel-rpi", "runc", "vsudd")
        loaders = ("bootstage", "efi-boot", "rpi-boot", "syslinux")
        assert recipe.name in (*bases, *loaders)


def test_the_kit_has_what_its_page_says() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/kit.md").read_text()
    for folder in FOLDERS:
        assert f"| `{folder.name}` |" in page, folder.name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.name))
def test_a_packages_hash_covers_what_it_compiles_and_no_other_source(folder: Path, tmp_path: Path) -> None:
    guest, store = tmp_path / "guest", Store(tmp_path / "cache")
    shutil.copytree(data_dir("guest"), guest)
    kit = Kit(store, tmp_path, guest=guest)
    compiled = {p for program in load(folder).programs for pattern in program.sources for p in guest.glob(pattern)}
    before = kit.hash(folder.name)
    for source in sorted(guest.rglob("*.c")):
        text = source.read_bytes()
        source.write_bytes(text + b"\n")
        assert (kit.hash(folder.name) != before) == (source in compiled), source
        source.write_bytes(text)
    (guest / "include/util.h").write_bytes(b"")
    assert (kit.hash(folder.name) != before) == bool(compiled)


def test_init_says_that_it_wants_the_plan(tmp_path: Path) -> None:
    recipe = load(data_dir("kit") / "init")
    assert recipe.labels == {"org.linuxkit.guest": "plan/2"}
    nodes = own(recipe, tmp_path)
    assert {"sbin/init", "bin/rc.init", "bin/rc.shutdown", "usr/bin/service", "sbin/modprobe", "sbin/poweroff",
            "sbin/reboot", "etc/init.d/005-volumes", "etc/init.d/030-services"} <= set(nodes)  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "words"), [
    ("descripton: x\n", 3, 1, "did you mean 'description'"),
    ("debian: [x]\n", 3, 9, "a mapping is needed"),
    ("debian: {keep: [a]}\n", 3, 9, "'packages' is missing"),
    ("debian: {packages: x}\n", 3, 20, "a list is needed"),
    ("debian: {packages: [x], keep: [/usr/bin/x]}\n", 3, 32, "not a path relative"),
    ("debian:\n  packages: [x]\n  keep: [a/../b]\n", 5, 10, "not a path relative"),
    ("files:\n  - {path: a, mode: 9}\n", 4, 21, "an octal mode is needed"),
    ("files:\n  - {path: a, contents: x, symlink: y}\n", 4, 5, "only one of"),
    ("files:\n  - {contents: x}\n", 4, 5, "'path' is missing"),
    ("files:\n  - {path: a, uid: -1}\n", 4, 20, "a number is needed"),
    ("files:\n  - {path: a, directory: 1}\n", 4, 26, "true or false"),
    ("image: x\n", 3, 1, "stands here twice"),
    ("links: {/a: b}\n", 3, 13, "a list is needed"),
    ("config: [a]\n", 3, 9, "a mapping is needed"),
    ("users: [{name: a}]\n", 3, 9, "'id' is missing"),
    ("entrypoint: [a, {b: c}]\n", 3, 17, "a text is needed"),
])  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(HEAD + text, folder=Path("x"), file="build.yml")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == ("build.yml", line, column)
    assert words in str(problem)


def test_all_mistakes_are_told() -> None:
    with pytest.raises(InputError) as caught:
        parse(HEAD + "a: 1\nfiles: [{path: /x}, {path: ok, mode: x}]\nb: 2\n", folder=Path("x"), file="f")
    assert [p.line for p in caught.value.problems] == [3, 4, 4, 5]


@pytest.mark.parametrize("text", ["", "[]", "image: [", "\t", "- a\n", "image: y\ndescription: z\n"])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse(text, folder=Path("x"), file="f")


def test_the_nodes_that_a_recipe_writes(tmp_path: Path) -> None:
    recipe = parse(HEAD + """
files:
  - {path: etc/conf, contents: "hi", mode: "0600", uid: 5, gid: 6}
  - {path: tmp, directory: true, mode: "1777"}
  - {path: etc/link, symlink: conf}
links: {/bin/busybox: [bin/sh]}
users: [{name: www, id: 33}, {name: app, id: 40, gid: 33, home: /app, shell: /bin/sh}]
groups: [{name: tty, id: 5}]
config: {capabilities: [all], uid: 0}
""", folder=Path("x"), file="f")  # fmt: skip
    nodes = own(recipe, tmp_path)
    conf = nodes["etc/conf"]
    assert (conf.kind, conf.mode, conf.uid, conf.gid, read_all(conf.source, 9)) == (Kind.FILE, 0o600, 5, 6, b"hi")
    assert (nodes["tmp"].kind, nodes["tmp"].mode) == (Kind.DIRECTORY, 0o1777)
    assert nodes["bin/sh"].target == "/bin/busybox"
    assert read_all(nodes["etc/passwd"].source, 999).decode().splitlines() == [
        "root:x:0:0:root:/root:/bin/sh", "www:x:33:33:www:/:/sbin/nologin", "app:x:40:33:app:/app:/bin/sh",
    ]  # fmt: skip
    assert read_all(nodes["etc/group"].source, 999) == b"root:x:0:\nwww:x:33:\ntty:x:5:\n"
    assert recipe.config == '{"capabilities":["all"],"uid":0}'
    paths = [node.path for node in ordered(nodes)]
    assert paths == ["bin", "bin/sh", "etc", "etc/conf", "etc/group", "etc/link", "etc/passwd", "tmp"]


def kit(tmp_path: Path) -> Kit:
    (tmp_path / "kit/one").mkdir(parents=True)
    (tmp_path / "kit/one/build.yml").write_text("image: one\ndescription: d\n")
    (tmp_path / "guest/src").mkdir(parents=True)
    (tmp_path / "guest/src/main.c").write_text("int main(void) { return 0; }\n")
    return Kit(Store(tmp_path / "store"), tmp_path / "cache", folder=tmp_path / "kit", guest=tmp_path / "guest")


def test_the_hash_follows_the_recipes_folder_and_the_sources_it_compiles(tmp_path: Path) -> None:
    at = kit(tmp_path)
    recipe, source = tmp_path / "kit/one/build.yml", tmp_path / "guest/src/main.c"
    hashes = [at.hash("one")]
    source.write_text("int main(void) { return 1; }\n")
    assert at.hash("one") == hashes[0]  # it compiles nothing
    recipe.write_text(recipe.read_text() + "c: [{path: p, sources: [src/main.c]}]\n")
    hashes.append(at.hash("one"))
    source.write_text("int main(void) { return 2; }\n")
    hashes.append(at.hash("one"))
    (tmp_path / "kit/one/more").write_text("x")
    hashes.append(at.hash("one"))
    assert len(set(hashes)) == 4
    assert all(len(h) == 40 and not h.strip("0123456789abcdef") for h in hashes)
    assert at.reference("one") == f"linuxkit.kit/one:{hashes[-1]}"


def test_an_unknown_package_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        kit(tmp_path).hash("onne")
    assert "kit://one" in caught.value.hint
    for name in ("", "../one", "one/..", "/etc"):
        with pytest.raises(InputError, match="the kit has no package"):
            kit(tmp_path / name.replace("/", "_") / "x").hash(name)
