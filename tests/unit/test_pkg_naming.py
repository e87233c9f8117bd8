"""Names of packages by their git tree, against git itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError
from linuxkit.pkg.naming import Name, Naming, name_of, package_name
from linuxkit.pkg.parse import read_package

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
    ("image: [5]\n", "needs a string"),
    ("image:\n", "'image' is missing"),
    ("image: a\nextra-sources: [x]\n", "is not source:destination"),
    ("image: a\nextra-sources: ['x:../y']\n", "leads out of the build's files"),
    ("image: a\ndockerfile: ../Dockerfile\n", "is not below the package"),
    ("image: a\narches: amd64\n", "needs a list"),
    ("image: a\nnetwork: maybe\n", "write true or false"),
    ("image: a\nnetwork: 1\n", "needs a boolean"),
    ("image: a\nconfig: {oomScoreAdj: '5'}\n", "needs an integer"),
    ("image: a\nbuildArgs: [X]\n", "is not NAME=value"),
    ("image: a\nconfig: {capabilites: [all]}\n", "did you mean 'capabilities'?"),
    ("image: a\ndepends: {docker-images: {target: x}}\n", "needs one of from-file and list"),
    ("image: a\ndepends: {docker-images: {list: ['nginx:1']}}\n", "needs one of target and target-dir"),
    ("image: a\ndepends: {docker-images: {target: x, list: ['nginx:1']}}\n", "lacks a digest"),
    ("image: a\ndebain: {}\n", "did you mean 'debian'?"),
    ("image: a\ndebian: {packages: [x], kep: [y]}\n", "did you mean 'keep'?"),
    ("image: a\nfiles: []\ndockerfile: Dockerfile\n", "this is a native recipe"),
])  # fmt: skip
def test_a_bad_build_yml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "build.yml").write_text(text)
    with pytest.raises(InputError) as caught:
        package_name(tmp_path)
    (problem,) = [p for p in caught.value.problems if message in str(p)][:1]
    assert problem.file.endswith("build.yml")
    assert problem.line > 0


def test_scalars_are_read_as_go_reads_them_into_typed_fields(tmp_path: Path) -> None:
    """What LinuxKit's own packages and EVE's have: booleans of YAML 1.1, numbers for text, keys with nothing."""
    (tmp_path / "build.yml").write_text("""
image: 1.10
org: 0666
tag:
network: yes
disable-cache: "off"
arches:
buildArgs:
config:
  readonly: On
  noNewPrivileges: n
  oomScoreAdj: 5.0
  command: [0755, yes, null]
  hostname: on
  capabilities:
  runtime:
    mkdir: [08]
  tmpfs:
  annotations: {a: true}
""")
    found = read_package(tmp_path)
    assert (found.image, found.org, found.tag) == ("1.10", "0666", "{{.Hash}}")
    assert (found.network, found.disable_cache, found.arches) == (True, False, ("amd64", "arm64", "riscv64"))
    assert json.loads(found.config) == {
        "readonly": True, "noNewPrivileges": False, "oomScoreAdj": 5, "command": ["0755", "yes", ""], "hostname": "on",
        "runtime": {"mkdir": ["08"]}, "annotations": {"a": "true"},
    }  # fmt: skip


def test_the_systems_yaml_stays_strict() -> None:
    """LinuxKit holds it against a JSON schema before it decodes it, so none of this is taken there."""
    for wrong in ("readonly: yes", "hostname: 0666", "capabilities:"):
        with pytest.raises(InputError):
            parse_config(f"services: [{{name: a, image: b, {wrong}}}]", "a.yml")


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


def named(folder: Path, **naming: object) -> Name:
    return name_of(read_package(folder), Naming(**naming))  # type: ignore[arg-type]


def test_links_programs_and_odd_names_count_as_git_counts_them(tree: Path) -> None:
    pkg = tree / "pkg/a"
    (pkg / "deep/er").mkdir(parents=True)
    (pkg / "deep/er/\N{LATIN SMALL LETTER E WITH ACUTE} x").write_text("odd")
    (pkg / "link").symlink_to("deep/er")
    (pkg / "run.sh").write_text("#!/bin/sh\n")
    (pkg / "run.sh").chmod(0o755)
    git(tree, "add", ".")
    written = git(tree, "write-tree")
    git(tree, "commit", "-q", "-m", "more")
    tree_id = git(tree, "ls-tree", "--full-tree", written, "--", "pkg/a").split()[2]
    assert named(pkg).hash == tree_id
    assert named(pkg, tag="v1-{{.Hash}}").text == f"linuxkit/a:v1-{tree_id}"
    before = tree_id
    (pkg / "run.sh").chmod(0o644)  # the mode alone is a change
    changed = named(pkg)
    assert changed.dirty
    assert changed.hash.startswith(f"{before}-dirty-")


def test_ignored_files_are_no_change_and_a_staged_one_taken_back_is_none(tree: Path) -> None:
    pkg = tree / "pkg/a"
    (pkg / ".gitignore").write_text("*.o\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "ignore")
    clean = named(pkg)
    assert not clean.dirty
    (pkg / "x.o").write_text("object")
    (pkg / "link").symlink_to("build.yml")
    assert named(pkg).dirty  # a link counts as a change, and its content doesn't count for the hash
    (pkg / "link").unlink()
    assert named(pkg) == clean
    (pkg / "Dockerfile").write_text("FROM alpine\n")
    git(tree, "add", ".")
    (pkg / "Dockerfile").write_text("FROM scratch\n")
    assert named(pkg) == clean  # git diff HEAD: the work tree is what HEAD has


def test_the_hash_of_another_commit_directory_or_none(tree: Path) -> None:
    pkg = tree / "pkg/a"
    first = git(tree, "rev-parse", "HEAD")
    commit(tree, "image: a\norg: x\n")
    (pkg / "new").write_text("changed")
    old = named(pkg, commit=first)
    assert (old.hash, old.dirty) == (git(tree, "rev-parse", f"{first}:pkg/a"), False)
    (pkg / "new").unlink()
    assert named(pkg, hash_path=tree / "pkg").hash == git(tree, "rev-parse", "HEAD:pkg")
    assert named(pkg, hash="abc").text == "x/a:abc"
    assert named(pkg, hash="abc", org="ghcr.io/me").full == "ghcr.io/me/a:abc"
    assert named(pkg, user="me").text == "me/a:dev"
    contents = hashlib.sha256(b"FROM scratch\nimage: a\norg: x\n").hexdigest()[:7]
    assert named(pkg, force_dirty=True).hash == f"{git(tree, 'rev-parse', 'HEAD:pkg/a')}-dirty-{contents}"
    with pytest.raises(InputError, match="is not in the commit"):
        named(tree / "pkg/a", commit=git(tree, "commit-tree", git(tree, "mktree", "--missing"), "-m", "empty"))


def test_blanks_of_a_template_are_trimmed_as_go_does(tree: Path) -> None:
    assert named(tree / "pkg/a", tag="v {{- .Hash -}} x", hash="h").tag == "vhx"
    with pytest.raises(InputError, match=r"build\.yml: invalid image name"):
        named(tree / "pkg/a", tag="a b")


def test_show_tag_prints_a_line_for_each(tree: Path) -> None:
    import sys

    (tree / "pkg/b").mkdir()
    (tree / "pkg/b/build.yml").write_text("image: b\norg: other\nfiles: [{path: x, contents: y}]\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "b")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "linuxkit", "pkg", *words], capture_output=True, text=True,
                              cwd=tree, env=os.environ | {"HOME": str(tree)})  # fmt: skip

    a, b = (git(tree, "rev-parse", f"HEAD:pkg/{name}") for name in "ab")
    assert run("show-tag", "pkg/a", "pkg/b").stdout == f"linuxkit/a:{a}\nother/b:{b}\n"
    assert run("--org", "x", "show-tag", "--canonical", "pkg/a", "--tag", "t").stdout == "docker.io/x/a:t\n"
    wrong = run("show-tag", "pkg/bb", "--network", "--nonetwork")
    assert (wrong.returncode, "cannot be used together" in wrong.stderr) == (2, True)
    wrong = run("show-tag", "pkg/bb")
    assert (wrong.returncode, "did you mean 'b'?" in wrong.stderr) == (2, True)
