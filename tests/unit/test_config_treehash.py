"""Names of packages by their git tree, against git itself."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from linuxkit.errors import InputError
from linuxkit.packages.treehash import package_name

pytestmark = pytest.mark.unit


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pkg/a").mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/x.c").write_text("int x;\n")
    (tmp_path / "pkg/a/build.yml").write_text("image: a\n")
    (tmp_path / "pkg/a/Dockerfile").write_text("FROM scratch\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def commit(tree: Path, build_yml: str) -> None:
    (tree / "pkg/a/build.yml").write_text(build_yml)
    git(tree, "commit", "-q", "-a", "-m", "next")


def test_the_hash_is_the_git_tree(tree: Path) -> None:
    assert package_name(tree / "pkg/a") == f"docker.io/linuxkit/a:{git(tree, 'rev-parse', 'HEAD:pkg/a')}"


def test_org_and_tag_template(tree: Path) -> None:
    commit(tree, "image: a\norg: me\ntag: 'v1-{{ .Hash }}'\nnetwork: true\nconfig: {binds: []}\n")
    assert package_name(tree / "pkg/a") == f"docker.io/me/a:v1-{git(tree, 'rev-parse', 'HEAD:pkg/a')}"


def test_extra_sources_are_hashed_in(tree: Path) -> None:
    commit(tree, "image: a\nextra-sources: ['../../lib:lib']\n")
    both = git(tree, "rev-parse", "HEAD:pkg/a") + git(tree, "rev-parse", "HEAD:lib")
    assert package_name(tree / "pkg/a").endswith(":" + hashlib.sha1(both.encode()).hexdigest())


def test_a_package_at_the_top_of_a_repository(tree: Path) -> None:
    (tree / "build.yml").write_text("image: top\n")
    git(tree, "add", "build.yml")
    git(tree, "commit", "-q", "-m", "top")
    assert package_name(tree) == f"docker.io/linuxkit/top:{git(tree, 'rev-parse', 'HEAD^{tree}')}"


def test_a_change_makes_it_dirty_with_the_contents_hash(tree: Path) -> None:
    clean = package_name(tree / "pkg/a")
    (tree / "pkg/a/new").write_text("n")
    # git's order: Dockerfile, build.yml (tracked), then what is not tracked
    contents = hashlib.sha256(b"FROM scratch\nimage: a\nn").hexdigest()
    assert package_name(tree / "pkg/a") == f"{clean}-dirty-{contents[:7]}"
    (tree / "pkg/a/new").unlink()
    (tree / "other").write_text("outside the package")
    assert package_name(tree / "pkg/a") == clean


def test_outside_git_it_is_latest(tmp_path: Path) -> None:
    (tmp_path / "build.yml").write_text("image: a\n")
    assert package_name(tmp_path) == "docker.io/linuxkit/a:latest"


@pytest.mark.parametrize(("text", "message"), [
    ("org: x\n", "'image' is missing"),
    ("imege: x\n", "did you mean 'image'?"),
    ("image: 5\n", "needs a string"),
    ("image: a\nextra-sources: [x]\n", "is not source:destination"),
])  # fmt: skip
def test_a_bad_build_yml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "build.yml").write_text(text)
    with pytest.raises(InputError) as caught:
        package_name(tmp_path)
    (problem,) = [p for p in caught.value.problems if message in str(p)]
    assert problem.file.endswith("build.yml")
    assert problem.line > 0


def test_what_is_no_package_and_what_is_not_committed(tree: Path) -> None:
    with pytest.raises(InputError, match="is not a package"):
        package_name(tree / "lib")
    (tree / "pkg/b").mkdir()
    (tree / "pkg/b/build.yml").write_text("image: b\n")
    with pytest.raises(InputError, match="is not in git"):
        package_name(tree / "pkg/b")
    commit(tree, "image: a\ntag: '{{.Date}}'\n")
    with pytest.raises(InputError, match="template"):
        package_name(tree / "pkg/a")
