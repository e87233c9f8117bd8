"""Native packages: built without an engine, named by content, pushed, and left alone when they are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linuxkit.errors import InputError
from linuxkit.oci.store import Store
from linuxkit.pkg.order import in_order
from support.packages import Repository, files, git, image
from support.packages import repository as repository
from support.registry import Registry

pytestmark = pytest.mark.unit
TOOL = "image: tool\norg: {org}\nfiles:\n  - {{path: etc/tool, contents: {text}}}\nconfig: {{binds: ['/a:/b']}}\n"


def test_a_native_package_is_built_for_each_architecture_and_only_once(repository: Repository) -> None:
    with Registry() as registry:
        org = f"{registry.host}/team"
        repository.put({"tool/build.yml": TOOL.format(org=org, text="x"), "other": "y"})
        name = f"{org}/tool:{repository.tag('tool')}"
        done = repository.pkg("build", "tool")
        made = image(repository, name)
        assert done.stdout == f"{name}@{made.index.digest if made.index else ''}\n"
        assert files(repository, made) == {"etc/tool": b"x"}
        assert made.config.labels["org.mobyproject.config"] == '{"binds":["/a:/b"]}'
        assert made.config.labels["org.opencontainers.image.revision"] == git(repository.root, "rev-parse", "HEAD")
        assert image(repository, name, "arm64").config.architecture == "arm64"
        assert image(repository, f"{name}-arm64", "arm64").index is None
        assert "building" in done.stderr
        again = repository.pkg("build", "tool")
        assert (again.stdout, "building" in again.stderr) == (done.stdout, False)
        forced = repository.pkg("build", "tool", "--force", "--platforms", "linux/amd64")
        assert (forced.stdout, forced.stderr.count("building")) == (done.stdout, 1)


def test_pushing_skips_what_is_there_and_releases_once(repository: Repository) -> None:
    with Registry() as registry:
        org = f"{registry.host}/team"
        repository.put({"tool/build.yml": TOOL.format(org=org, text="x")})
        tag = repository.tag("tool")
        first = repository.pkg("build", "--push=true", "tool", "--release", "v1")
        names = {k.partition(":")[2] for k in registry.manifests if "@" not in k}
        assert names == {tag, f"{tag}-amd64", f"{tag}-arm64", "v1", "v1-amd64", "v1-arm64"}
        data = registry.manifests[f"team/tool:{tag}"][1]
        assert [m["platform"]["architecture"] for m in json.loads(data)["manifests"]] == ["amd64", "arm64"]
        assert first.stdout.endswith("\n")
        # on another machine: it is published, so nothing is built
        repository.cache = repository.cache.with_name("cache2")
        other = repository.pkg("push", "tool")
        assert "building" not in other.stderr
        assert "No new platforms to push, skipping." in other.stderr
        pulled = repository.pkg("build", "--pull", "tool")
        assert pulled.stdout == first.stdout
        # a change makes it dirty: it is built and not pushed
        (repository.root / "tool/new").write_text("n")
        dirty = repository.pkg("push", "tool", status=1)
        assert "build complete, refusing to push dirty package" in dirty.stderr
        assert {k.partition(":")[2] for k in registry.manifests if "@" not in k} == names
        repository.put({"tool/build.yml": TOOL.format(org=org, text="y")})
        git(repository.root, "tag", "v1")
        released = repository.pkg("push", "tool", "--platforms", "linux/amd64")
        assert "v1: is another image: left as it is" in released.stderr


def test_an_index_of_what_two_machines_pushed(repository: Repository) -> None:
    with Registry() as registry:
        org = f"{registry.host}/team"
        repository.put({"tool/build.yml": TOOL.format(org=org, text="x")})
        tag = repository.tag("tool")
        missing = repository.pkg("index", "tool", status=1)
        assert f"has none of {tag}-amd64" in missing.stderr
        for arch in ("amd64", "arm64"):
            repository.pkg("build", "--push", "--force", "--platforms", f"linux/{arch}", "tool")
            repository.cache = repository.cache.with_name(f"cache-{arch}")
        del registry.manifests[f"team/tool:{tag}"]
        done = repository.pkg("manifest", "--release", "v2", "tool")
        kind, data = registry.manifests[f"team/tool:{tag}"]
        assert [m["platform"]["architecture"] for m in json.loads(data)["manifests"]] == ["amd64", "arm64"]
        assert registry.manifests["team/tool:v2"] == (kind, data)
        assert done.stdout.startswith(f"{org}/tool:{tag}@sha256:")
        copied = repository.pkg("remote-tag", f"{org}/tool:v2", f"{org}/copy:v3")
        assert registry.manifests["team/copy:v3"] == (kind, data)
        assert copied.stdout == done.stdout.replace(f"tool:{tag}", "copy:v3")
        again = repository.pkg("remote-tag", f"{org}/tool:v2", f"{org}/tool:v2")
        assert "has that image already" in again.stderr


def test_a_login_of_the_command_line(repository: Repository) -> None:
    with Registry(login=("me", "secret")) as registry:
        org = f"{registry.host}/team"
        repository.put({"tool/build.yml": TOOL.format(org=org, text="x")})
        refused = repository.pkg("push", "tool", status=1)
        assert "secret" not in refused.stderr
        repository.pkg("push", "tool", "--registry-creds", f"{registry.host}=me:secret")
        assert f"team/tool:{repository.tag('tool')}" in registry.manifests


def test_packages_on_packages_are_built_in_order(repository: Repository) -> None:
    with Registry() as registry:
        org = f"{registry.host}/team"
        base = f"image: base\norg: {org}\nenv: [X=1, Y=2]\nentrypoint: [/a]\n"
        base += "files: [{path: a, contents: low}, {path: b, contents: b}]\n"
        top = f"image: top\norg: {org}\nbase: '@pkg:../base'\nfiles: [{{path: a, contents: high}}]\nenv: [X=3]\n"
        repository.put({"pkg/base/build.yml": base, "pkg/top/build.yml": top, "pkg/top/x": "y"})
        done = repository.pkg("build", "pkg/top", "--platforms", "linux/arm64")
        made = image(repository, done.stdout.partition("@")[0], "arm64")
        assert files(repository, made) == {"a": b"high", "b": b"b"}
        assert (made.config.env, made.config.entrypoint) == (("Y=2", "X=3"), ("/a",))
        assert done.stderr.index("built team/base".replace("team", org)) < done.stderr.index(f"building {org}/top")
        repository.put({"pkg/base/build.yml": base + "base: '@pkg:../top'\n"})
        assert "need each other in a circle" in repository.pkg("build", "pkg/top", status=2).stderr


def test_a_file_of_the_package_and_its_nearest_name(repository: Repository) -> None:
    text = "image: tool\norg: 127.0.0.1:1/x\nfiles: [{path: etc/x, source: conf/tool.cnf, mode: '0600'}]\n"
    repository.put({"tool/build.yml": text, "tool/conf/tool.conf": "content"})
    assert "did you mean 'conf/tool.conf'?" in repository.pkg("build", "tool", status=2).stderr
    repository.put({"tool/build.yml": text.replace("tool.cnf", "tool.conf")})
    done = repository.pkg("build", "tool", "--platforms", "linux/amd64")
    assert "does not say whether it has" in done.stderr  # nobody is at that address; it is built all the same
    assert files(repository, image(repository, done.stdout.partition("@")[0])) == {"etc/x": b"content"}


@pytest.mark.parametrize(("words", "message"), [
    (["build", "tool", "--force", "--nobuild"], "--force and --nobuild cannot be used together"),
    (["build", "tool", "--force", "--pull"], "--force and --pull cannot be used together"),
    (["build", "tool", "--platforms", "linux/amd64", "--skip-platforms", "linux/arm64"], "cannot be used together"),
    (["build", "tool", "--platforms", "arm64"], "is not linux/ARCH"),
    (["build", "tool", "--release", "v1"], "--release names what is pushed"),
    (["build", "tool", "--hash-commit", "HEAD~1"], "only the files of HEAD can be built"),
    (["build", "tool", "--engine", "buildha"], "did you mean 'buildah'?"),
    (["build", "tool", "--builders", "linux/arm64"], "is not PLATFORM=WHERE"),
    (["build", "tool", "--registry-creds", "x"], "is not REGISTRY=USER:PASSWORD"),
    (["build", "tool", "--builder-config", "none.toml"], "there is no such file"),
    (["build", "tool", "--secret", "id=x,src=none"], "there is no file none"),
    (["build", "tool", "--secret", "x"], "--secret is not id=NAME,src=FILE"),
    (["build", "empty"], "a package has a Dockerfile, or is a native recipe"),
    (["build", "tol"], "did you mean 'tool'?"),
    (["remote-tag", "a b", "c"], "invalid image name"),
])  # fmt: skip
def test_mistakes(repository: Repository, words: list[str], message: str) -> None:
    repository.put({"tool/build.yml": TOOL.format(org="127.0.0.1:1/x", text="x"), "empty/build.yml": "image: empty\n"})
    done = repository.pkg(*words, status=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert not repository.cache.exists()


def test_nothing_half_built_is_kept(repository: Repository) -> None:
    with Registry() as registry:
        text = TOOL.format(org=f"{registry.host}/x", text="x") + "c: [{path: bin/x, sources: [missing.c]}]\n"
        repository.put({"tool/build.yml": text, "tool/src/missin.c": ""})
        failed = repository.pkg("build", "tool", status=1)
        assert "no C source matches missing.c" in failed.stderr
        assert "did you mean 'src/missin.c'?" in failed.stderr
    assert Store(repository.cache).names() == []


def test_work_goes_in_order_side_by_side_and_stops_at_a_failure(tmp_path: Path) -> None:
    import threading

    together = threading.Barrier(2, timeout=20)
    order: list[str] = []

    def work(key: str) -> str:
        if key in "ab":
            together.wait()  # both run at once, or this fails
        order.append(key)
        if key == "bad":
            raise ValueError(key)
        return key.upper()

    assert in_order({"a": set(), "b": set(), "c": {"a", "b"}}, work, 2)["c"] == "C"
    assert order[2] == "c"
    order.clear()
    with pytest.raises(ValueError, match="bad"):
        in_order({"bad": set(), "never": {"bad"}}, work, 2)
    assert order == ["bad"]
    with pytest.raises(InputError, match="in a circle: "):
        in_order({"x": {"y"}, "y": {"x"}}, work, 2)
