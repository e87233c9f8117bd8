from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from linuxkit.errors import ImageError
from linuxkit.packages.index import Index, Relation, relations, version_key

pytestmark = pytest.mark.unit

#: in order; from Debian Policy 5.6.12 and deb-version(7)
ORDER = [
    "0~~", "0~~a", "0~", "0", "0a", "0+", "0.1", "1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-0.1", "1.0-1",
    "1.0-1+b1", "1.0-1+deb13u1", "1.0-1.1", "1.0-2",
    "1.0-10", "1.0a", "1.0+dfsg-1", "1.1", "1.9", "1.10", "2", "1:0.1", "1:1.0",
    "10:0",
]  # fmt: skip


def test_versions_sort_as_debian_says() -> None:
    for low, high in itertools.combinations(ORDER, 2):
        assert version_key(low) < version_key(high), (low, high)


@pytest.mark.parametrize(("left", "right"), [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.00", "1.0"), ("1.0-01", "1.0-1")])
def test_versions_that_are_the_same(left: str, right: str) -> None:
    assert version_key(left) == version_key(right)


@pytest.mark.parametrize(("relation", "version", "fits"), [
    ("a (>= 1.0)", "1.0", True), ("a (>= 1.0)", "1.0~rc1", False), ("a (<< 2)", "1.9", True), ("a (<< 2)", "2", False),
    ("a (= 1:1)", "1", False), ("a (>> 1)", "1+b1", True), ("a (<= 1)", "1", True), ("a", "0", True),
])  # fmt: skip
def test_relations_accept(relation: str, version: str, fits: bool) -> None:
    assert relations(relation)[0][0].accepts(version) is fits


def test_relations_of_all_forms() -> None:
    found = relations("libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0,\n perl:any, x [amd64], nonsense !, y<z>")
    assert [[str(r.name) for r in group] for group in found] == [
        ["libc6"], ["debconf", "debconf-2.0"], ["perl"], ["x"]
    ]  # fmt: skip


def stanza(name: str, version: str = "1", **fields: str) -> str:
    lines = {"Package": name, "Version": version, "Architecture": "amd64", "Filename": f"pool/{name}.deb", "Size": "1",
             "SHA256": "0" * 64, **{k.replace("_", "-"): v for k, v in fields.items()}}  # fmt: skip
    return "".join(f"{k}: {v}\n" for k, v in lines.items())


def index(tmp_path: Path, *files: list[str]) -> Index:
    out = []
    for number, stanzas in enumerate(files):
        path = tmp_path / f"Packages{number}"
        path.write_text("\n".join(stanzas))
        out.append((f"http://m{number}", path))
    return Index(out)


def test_the_newest_version_of_all_files_wins_and_knows_its_mirror(tmp_path: Path) -> None:
    found = index(tmp_path, [stanza("a", "1"), stanza("b")], [stanza("a", "1+deb13u1")], []).best(Relation("a"))
    assert found is not None
    assert (found.version, found.mirror) == ("1+deb13u1", "http://m1")


def test_an_older_version_is_taken_where_only_it_fits(tmp_path: Path) -> None:
    found = index(tmp_path, [stanza("a", "1")], [stanza("a", "2")]).best(Relation("a", "<<", "2"))
    assert found is not None
    assert found.version == "1"


def test_a_virtual_package_is_found_by_who_provides_it(tmp_path: Path) -> None:
    at = index(tmp_path, [stanza("z", Provides="mta"), stanza("exim", Provides="smtp, mta (= 2)"), stanza("mtax")])
    by_any, by_version = at.best(Relation("mta")), at.best(Relation("mta", ">=", "2"))
    assert by_any is not None
    assert by_version is not None
    assert (by_any.name, by_version.name) == ("exim", "exim")
    assert at.best(Relation("mta", ">=", "3")) is None
    assert at.best(Relation("nothing")) is None


def test_fields_over_several_lines_and_the_first_and_last_stanza(tmp_path: Path) -> None:
    at = index(tmp_path, [stanza("first", Depends="a,\n b (>= 1)", Description="one\n Package: fake"), stanza("last")])
    found = at.best(Relation("first"))
    assert found is not None
    assert [group[0].name for group in found.depends] == ["a", "b"]
    assert at.best(Relation("last")) is not None
    assert at.names() == ["first", "last"]


@pytest.mark.parametrize("fields", [
    {"Size": "many"}, {"SHA256": "12"}, {"Filename": "../../etc/passwd"}, {"Filename": "/etc/passwd"},
])  # fmt: skip
def test_a_damaged_stanza_is_refused(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(ImageError, match="damaged entry for a"):
        index(tmp_path, [stanza("a", **fields)]).best(Relation("a"))
