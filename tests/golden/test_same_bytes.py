"""The same bytes of every format from other caches, homes, bundles and locks: nothing but content decides them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.outputs.table import FORMATS
from linuxkit.plan import model
from support.builds import linuxkit
from support.formats import Group, cache_for_all, groups
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.golden
Digests = dict[str, str]

SOURCE = "  - {path: etc/key, source: '~/key', mode: '0644'}\n"
LAYOUT = "volumes:\n  - {name: kept, image: 'kit://bootstage', format: oci}\n"


def wanted() -> list[tuple[str, Group, tuple[str, ...]]]:
    """Every format, and what none does by itself, with a file of the home folder."""
    found: list[tuple[str, Group, tuple[str, ...]]] = []
    for n, group in enumerate(groups()):
        text = group.text
        text = text.replace("}]\n", "}, {path: k, source: '~/key'}]\n") if "}]" in text else text + SOURCE
        found.append((str(n), group._replace(text=text), ()))
    plain = found[0][1].text.replace("volumes:\n", LAYOUT)
    assert plain.count("bootstage") == 1
    rooted = Group(("raw", "kernel+erofs"), plain)
    found.append(("rooted", rooted, ("--root", "ext4", "--verity", "--data-partition", "16M")))
    return found


def more_in(cache: Path) -> None:
    """Give every image another architecture, so that its index is another one; and other names."""
    store = Store(cache)
    for n, name in enumerate(store.names()):
        make_image(store, name, tar_of(member(f"x{n}")), platform=Platform("linux", "riscv64"))
    make_image(store, "docker.io/t/other:1", tar_of(member("x")))


def made_in(folder: Path, cache: Path, how: str = "", **environment: str) -> Digests:
    """Every format, built in a folder which is the home; `how` is lock, bundle, or neither."""
    found = {}
    (folder / "key").write_bytes(b"secret" * 100)
    for where, group, flags in wanted():
        work = folder / where
        work.mkdir()
        (work / "x.yml").write_text(group.text)
        what = ["--offline", "--arch", group.architecture]
        formats = ["--format", ",".join(group.formats)]
        run = {"cwd": work, "cache": cache, "HOME": str(folder)} | environment
        if how == "lock":
            linuxkit("lock", *what, *formats, "x.yml", **run)  # type: ignore[arg-type]
        inputs = ["x.yml"]
        if how == "bundle":
            linuxkit("bundle", *what, *formats, *(["--format", "raw"] if flags else []), "-o", "../x.tar", "x.yml",
                     **run)  # type: ignore[arg-type]  # fmt: skip
            inputs = ["--bundle", "../x.tar"]
            run |= {"cache": folder / f"empty-{where}"}
        linuxkit("build", *what, *formats, *flags, *inputs, **run)  # type: ignore[arg-type]
        found |= {f"{where}/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest()
                  for p in work.iterdir() if p.suffix not in (".yml", ".lock")}  # fmt: skip
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digests]:
    """A cache, and what a plain build writes."""
    root = tmp_path_factory.mktemp("made")
    cache = cache_for_all(root)
    (root / "home").mkdir()
    found = made_in(root / "home", cache)
    assert len(found) >= len(FORMATS)
    return cache, found


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.mark.parametrize("how", ["", "lock", "bundle"])
def test_from_another_cache_and_home(made: tuple[Path, Digests], tmp_path: Path, how: str) -> None:
    """The cache has more architectures and names, the home is elsewhere, and so is what the compiler keeps."""
    cache = cache_for_all(tmp_path)
    more_in(cache)
    home = tmp_path / "another home"
    home.mkdir()
    found = made_in(home, cache, how, ZIG_GLOBAL_CACHE_DIR=str(tmp_path / "zig"))
    assert differing(found, made[1]) == []


def test_the_comparison_notices_what_is_no_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary: with the plan's own JSON as the seed, which has paths and indexes, disks differ."""
    from linuxkit import Sources, build, load
    from linuxkit.plan.model import Options

    whole = property(lambda plan: f"sha256:{hashlib.sha256(model.canonical(plan.to_json())).hexdigest()}")
    monkeypatch.setattr(model.BuildPlan, "digest", whole)
    cache = cache_for_all(tmp_path)
    digests = []
    for n in range(2):
        out = tmp_path / f"{n}"
        out.mkdir()
        (tmp_path / "x.yml").write_text(groups()[0].text)
        build(load(tmp_path / "x.yml"), name="x", directory=out, sources=Sources(cache, offline=True),
              formats=["raw-efi"], options=Options("amd64"))  # fmt: skip
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir()})
        more_in(cache)
    assert differing(*digests)
