"""The same bytes of every format whatever the circumstances: place, time, zone, umask, hash seed, locale, threads."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from linuxkit import Sources, build, load
from linuxkit.outputs.table import FORMATS
from linuxkit.plan.model import Options
from support.builds import linuxkit
from support.formats import Group, cache_for_all, groups

pytestmark = pytest.mark.golden
Digests = dict[str, str]

#: A sitecustomize: the time is what $FAKE_TIME says, wherever Python asks for it. With $CANARY the fixed date that
#: goes into images is the time as well.
CLOCK = """
import datetime, os, time

now = float(os.environ["FAKE_TIME"])
real = datetime.datetime


class Fake(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(now, tz)

    @classmethod
    def utcnow(cls):
        return real.utcfromtimestamp(now)

    today = now


datetime.datetime = Fake
for name in ("gmtime", "localtime", "ctime"):
    setattr(time, name, lambda seconds=None, f=getattr(time, name): f(now if seconds is None else seconds))
time.time, time.time_ns = lambda: now, lambda: int(now * 1e9)
if "CANARY" in os.environ:
    import linuxkit.entry

    linuxkit.entry.FIXED_MTIME = int(time.time())
"""


def made_in(folder: Path, cache: Path, **environment: str) -> Digests:
    """Build every format in a folder with a copy of a cache; the files' digests by group and name."""
    own = folder / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("derived"))
    clock = folder / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK)
    if "FAKE_TIME" in environment:
        environment["PYTHONPATH"] = f"{clock}:{os.environ.get('PYTHONPATH', '')}"
    found = {}
    rooted = [  # what no format does by itself
        ("verified", "raw,kernel+erofs", "--root", "ext4", "--verity"),
        ("data", "raw-efi", "--root", "ext4", "--data-partition", "16M:kept"),
    ]
    wanted = [(str(n), group, ()) for n, group in enumerate(groups())]
    wanted += [(where, Group(tuple(formats.split(","))), flags) for where, formats, *flags in rooted]
    for where, group, flags in wanted:
        work = folder / where
        work.mkdir()
        (work / "x.yml").write_text(group.text)
        arguments = ("--arch", group.architecture, "--offline", "--format", ",".join(group.formats), *flags)
        linuxkit("build", *arguments, "x.yml", cwd=work, cache=own, **environment)
        found |= digests(work, where)
    return found


def digests(folder: Path, group: int | str) -> Digests:
    return {
        f"{group}/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.suffix != ".yml"
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digests]:
    """A cache, and what a plain build writes."""
    root = tmp_path_factory.mktemp("made")
    cache = cache_for_all(root)
    (root / "work").mkdir()
    found = made_in(root / "work", cache)
    assert len(found) >= len(FORMATS) == sum(len(group.formats) for group in groups())
    return cache, found


CIRCUMSTANCES = {
    "time zone": {"TZ": "Asia/Kathmandu"},
    "hash seed": {"PYTHONHASHSEED": "7"},
    "locale": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "time": {"FAKE_TIME": "2000000000", "SOURCE_DATE_EPOCH": "1"},
}


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
def test_circumstances_do_not_matter(made, tmp_path: Path, circumstance: str) -> None:
    cache, want = made
    work = tmp_path / "some other place"
    work.mkdir()
    before = os.umask(0o077)
    try:
        found = made_in(work, cache, **CIRCUMSTANCES[circumstance])
    finally:
        os.umask(before)
    assert {n: d for n, d in found.items() if want.get(n) != d} == {}
    assert found.keys() == want.keys()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(made, tmp_path: Path, threads: int) -> None:
    cache, want = made
    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("derived"))
    found = {}
    for n, group in enumerate(groups()):
        out = tmp_path / str(n)
        out.mkdir()
        (tmp_path / "x.yml").write_text(group.text)
        build(load(tmp_path / "x.yml"), name="x", directory=out, sources=Sources(own), threads=threads,
              formats=group.formats, options=Options(group.architecture))  # fmt: skip
        found |= digests(out, n)
    assert {n: d for n, d in found.items() if want.get(n) != d} == {}


def test_the_order_of_formats_does_not_matter(made, tmp_path: Path) -> None:
    """Each is built when others have filled the cache with what they share."""
    cache, want = made
    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("derived"))
    for n, group in reversed(list(enumerate(groups()))):
        (tmp_path / "x.yml").write_text(group.text)
        for name in reversed(group.formats):
            out = tmp_path / name
            out.mkdir()
            build(load(tmp_path / "x.yml"), name="x", directory=out, sources=Sources(own), formats=[name],
                  options=Options(group.architecture))  # fmt: skip
            for path, digest in digests(out, n).items():
                assert want[path] == digest, path


def test_the_comparison_notices_a_clock(made, tmp_path: Path) -> None:
    """The canary: when the time of day is the date in images, every format has a file that differs."""
    cache, want = made
    found = []
    for seconds in ("1900000000", "1900000001"):
        work = tmp_path / seconds
        work.mkdir()
        found.append(made_in(work, cache, FAKE_TIME=seconds, CANARY="1"))
    first, second = found
    changed = {n for n in want if len({first[n], second[n], want[n]}) == 3}
    for n, group in enumerate(groups()):
        for name in group.formats:
            assert any(f"{n}/x{ending}" in changed for ending in FORMATS[name].endings), name
