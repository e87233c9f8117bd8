"""Packages as LinuxKit's own tests build them: where the Dockerfile, the build arguments and the tag come from."""

from __future__ import annotations

import shlex

import pytest

from linuxkit.oci.store import Store
from support.images import ARM64, make_image, member, tar_of
from support.packages import Repository
from support.packages import repository as repository
from support.registry import Registry

pytestmark = pytest.mark.unit
NATIVE = "image: tool\norg: {org}\ntag: '{tag}'\nfiles: [{{path: x, contents: y}}]\n"


def told(repository: Repository, *words: str) -> list[str]:
    """The words that docker buildx would get for packages with Dockerfiles."""
    done = repository.pkg("build", *words, "--dry-run", "--engine", "buildx", "--platforms", "linux/arm64")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("docker")]
    return shlex.split(line)


def arguments(words: list[str]) -> dict[str, str]:
    return dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "--build-arg")


def test_which_dockerfile(repository: Repository) -> None:
    """build.yml's, --dockerfile before it, Dockerfile without either; one that is missing is an error."""
    repository.put({
        "d/build.yml": "image: d\n", "d/Dockerfile": "FROM scratch\n", "d/Other": "FROM scratch\n",
        "e/build.yml": "image: e\ndockerfile: Missing\n", "e/Other": "FROM scratch\n",
        "f/build.yml": "image: f\ndockerfile: sub/Mine\n", "f/sub/Mine": "FROM scratch\n",
    })  # fmt: skip

    def chosen(*words: str) -> str:
        command = told(repository, *words)
        return command[command.index("--file") + 1].removeprefix(f"{repository.root}/")

    assert chosen("d") == "d/Dockerfile"
    assert chosen("d", "--dockerfile", "Other") == "d/Other"
    assert chosen("f") == "f/sub/Mine"
    assert chosen("e", "--dockerfile", "Other") == "e/Other"
    dry = ("--dry-run", "--engine", "buildx")
    assert "Missing" in repository.pkg("build", "e", *dry, status=2).stderr
    assert "Nowhere" in repository.pkg("build", "d", "--dockerfile", "Nowhere", *dry, status=2).stderr


def test_a_base_is_named_by_build_arguments(repository: Repository) -> None:
    """ARG in FROM: from build.yml, from a file, the file's before build.yml's; the base comes from the cache."""
    store, made = Store(repository.cache), {}
    for tag in ("1", "2"):
        made[tag] = make_image(store, f"me/base:{tag}-arm64", tar_of(member("x", tag.encode())), platform=ARM64)
    dockerfile = "ARG IMAGE=nobody/nothing TAG\nFROM --platform=$TARGETPLATFORM ${IMAGE}:${TAG}\n"
    repository.put({
        "d/Dockerfile": dockerfile, "d/build.yml": "image: d\nbuildArgs: [IMAGE=me/base, TAG=1]\n",
        "n/Dockerfile": dockerfile, "n/build.yml": "image: n\n",
        "args": "TAG=2\n", "all": "IMAGE=me/base\nTAG=2\n",
    })  # fmt: skip

    def base(*words: str) -> str:
        command = told(repository, *words)
        (context,) = [command[n + 1] for n, word in enumerate(command) if word == "--build-context"]
        return context

    assert base("d").startswith("me/base:1=oci-layout://") and base("d").endswith(made["1"].digest)
    assert base("d", "--build-arg-file", "args").endswith(made["2"].digest)
    assert base("n", "--build-arg-file", "all").startswith("me/base:2=")


@pytest.mark.parametrize("where", ["yaml", "file"])
def test_arguments_name_packages_by_relative_and_absolute_folders(repository: Repository, where: str) -> None:
    """Relative ones are seen from the file that names them."""
    wanted = ["LOW=@lkt:pkg:../low", f"SAME=@lkt:pkg:{repository.root}/low", "P_%=@lkt:pkgs:../l*",
              f"Q_%=@lkt:pkgs:{repository.root}/l*"]  # fmt: skip
    lines = "".join(f"  - '{line}'\n" for line in wanted) if where == "yaml" else "  - X=1\n"
    repository.put({
        "top/Dockerfile": "FROM scratch\n",
        "top/other.yml": f"image: top\nbuildArgs:\n{lines}", "low/other.yml": "image: low\nfiles: []\n",
        "later/other.yml": "image: later\nfiles: []\n", "given/args": "".join(f"{line}\n" for line in wanted),
    })  # fmt: skip
    if where == "yaml":
        found = arguments(told(repository, "top", "--build-yml", "other.yml"))
    else:
        found = arguments(told(repository, "top", "--build-yml", "other.yml", "--build-arg-file", "given/args"))
    low, later = (f"linuxkit/{name}:{repository.tag(name)}" for name in ("low", "later"))
    assert found["LOW"] == found["SAME"] == found["P_LOW"] == found["Q_LOW"] == low
    assert found["P_LATER"] == found["Q_LATER"] == later


@pytest.mark.parametrize(("flags", "tag"), [((), "mine"), (("--tag", "theirs"), "theirs")])
def test_a_tag_of_build_yml_and_of_the_command_line(repository: Repository, flags: tuple[str, ...], tag: str) -> None:
    with Registry() as registry:
        org = f"{registry.host}/me"
        repository.put({"tool/build.yml": NATIVE.format(org=org, tag="mine")})
        repository.pkg("build", "tool", "--platforms", "linux/amd64", *flags)
    names = {name for name in Store(repository.cache).names() if name.endswith((":mine", ":theirs"))}
    assert names == {f"{org}/tool:{tag}"}


def test_a_tag_of_the_command_line_alone(repository: Repository) -> None:
    with Registry() as registry:
        org = f"{registry.host}/me"
        repository.put({"tool/build.yml": f"image: tool\norg: {org}\nfiles: [{{path: x, contents: y}}]\n"})
        repository.pkg("build", "tool", "--platforms", "linux/amd64", "--tag", "v-{{.Hash}}")
    assert f"{org}/tool:v-{repository.tag('tool')}" in Store(repository.cache).names()
