"""What each engine is told, word for word; how one is found; which images a Dockerfile takes; build arguments."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from linuxkit.errors import HostError, InputError
from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.pkg import buildargs, dockerfile
from linuxkit.pkg.engines import podman as podman_module
from linuxkit.pkg.engines.model import Build, Command, Served, Settings, familiar
from linuxkit.pkg.engines.table import ENGINES, choose, parse_builders
from linuxkit.pkg.naming import Name, name_of
from linuxkit.pkg.parse import read_package
from support.images import ARM64, make_image, member, tar_of
from support.packages import Repository
from support.packages import repository as repository

pytestmark = pytest.mark.unit
DIGEST = "sha256:" + "ab" * 32
BUILD = Build(
    Path("/src/tool"), "docker/Dockerfile", "docker.io/me/tool:1-arm64", Platform("linux", "arm64"),
    Path("/tmp/image.tar"), {"VERSION": "1 2", "PKG_HASH": "1"}, {"a.label": "b"}, secrets=("id=s,src=/s",),
    bases=(Served("alpine:3.22", "alpine:$V", DIGEST, "linuxkit/abab"),), ssh=("default",), progress="plain", sbom="",
)  # fmt: skip
PLAIN = replace(BUILD, arguments={}, labels={}, secrets=(), ssh=(), bases=(), sbom=None, network=True, no_cache=True)

#: (engine, builder, build, its commands apart by semicolons)
GOLDEN = [
    ("buildkit", "tcp://b:1234", BUILD, f"""
        buildctl --addr tcp://b:1234 build --progress plain --frontend dockerfile.v0 --local context=/src/tool
        --local dockerfile=/src/tool/docker --opt filename=Dockerfile --opt platform=linux/arm64
        --opt force-network-mode=none --opt 'build-arg:VERSION=1 2' --opt build-arg:PKG_HASH=1
        --opt label:a.label=b --opt attest:sbom= --opt context:alpine:3.22=oci-layout://base0@{DIGEST}
        --oci-layout base0=linuxkit/abab --secret id=s,src=/s --ssh default
        --output type=oci,name=docker.io/me/tool:1-arm64,dest=/tmp/image.tar"""),
    ("buildkit", "", PLAIN, """
        buildctl build --progress plain --frontend dockerfile.v0 --local context=/src/tool
        --local dockerfile=/src/tool/docker --opt filename=Dockerfile --opt platform=linux/arm64
        --opt force-network-mode=sandbox --opt no-cache=
        --output type=oci,name=docker.io/me/tool:1-arm64,dest=/tmp/image.tar"""),
    ("buildx", "arm-box", BUILD, f"""
        docker --context arm-box buildx build --builder linuxkit-builder --progress plain --platform linux/arm64
        --network none --build-arg 'VERSION=1 2' --build-arg PKG_HASH=1 --label a.label=b
        --build-context alpine:3.22=oci-layout://linuxkit/abab@{DIGEST} --secret id=s,src=/s --ssh default
        --provenance=false --sbom=true --tag docker.io/me/tool:1-arm64 --output type=oci,dest=/tmp/image.tar
        --file /src/tool/docker/Dockerfile /src/tool"""),
    ("buildx", "", replace(PLAIN, sbom="scan:1"), """
        docker buildx build --builder linuxkit-builder --progress plain --platform linux/arm64 --network default
        --no-cache --provenance=false --sbom=generator=scan:1 --tag docker.io/me/tool:1-arm64
        --output type=oci,dest=/tmp/image.tar --file /src/tool/docker/Dockerfile /src/tool"""),
    ("podman", "far", BUILD, """
        podman --connection far build --format oci --platform linux/arm64 --network none --layers
        --build-arg 'VERSION=1 2' --build-arg PKG_HASH=1 --label a.label=b
        --build-context alpine:3.22=docker-image://oci:linuxkit/abab
        --build-context 'alpine:$V=docker-image://oci:linuxkit/abab' --secret id=s,src=/s --ssh default
        --tag docker.io/me/tool:1-arm64 --file /src/tool/docker/Dockerfile /src/tool;
        podman --connection far save --quiet --format oci-archive --output /tmp/image.tar docker.io/me/tool:1-arm64"""),
    ("podman", "ssh://me@far", PLAIN, """
        podman --url ssh://me@far build --format oci --platform linux/arm64 --no-cache
        --tag docker.io/me/tool:1-arm64 --file /src/tool/docker/Dockerfile /src/tool;
        podman --url ssh://me@far save --quiet --format oci-archive --output /tmp/image.tar
        docker.io/me/tool:1-arm64"""),
    ("buildah", "", BUILD, """
        buildah build --isolation chroot --format oci --platform linux/arm64 --layers
        --build-arg 'VERSION=1 2' --build-arg PKG_HASH=1 --label a.label=b
        --build-context alpine:3.22=docker-image://oci:linuxkit/abab
        --build-context 'alpine:$V=docker-image://oci:linuxkit/abab' --secret id=s,src=/s --ssh default
        --tag docker.io/me/tool:1-arm64 --file /src/tool/docker/Dockerfile /src/tool;
        buildah push --quiet docker.io/me/tool:1-arm64 oci-archive:/tmp/image.tar:docker.io/me/tool:1-arm64"""),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "builder", "build", "recorded"), GOLDEN, ids=[f"{g[0]}-{g[1]}" for g in GOLDEN])
def test_commands_are_as_recorded(engine: str, builder: str, build: Build, recorded: str,
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(podman_module.shutil, "which", lambda name: None)
    commands = ENGINES[engine].commands(replace(build, builder=builder), Settings())
    assert commands == [shlex.split(command) for command in recorded.split(";")]


def test_buildah_isolates_with_a_runtime_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman_module.shutil, "which", lambda name: "/usr/bin/crun" if name == "crun" else None)
    words = ENGINES["buildah"].commands(BUILD, Settings())[0]
    assert "--isolation" not in words
    assert words[words.index("--network") + 1] == "none"
    assert ENGINES["buildah"].note(BUILD) == ""
    monkeypatch.setattr(podman_module.shutil, "which", lambda name: None)
    assert "not kept from the network" in ENGINES["buildah"].note(BUILD)
    assert ENGINES["buildah"].note(PLAIN) == ""


def test_a_builder_of_buildx_is_made_once(tmp_path: Path) -> None:
    buildx, settings = ENGINES["buildx"], Settings("b", "kit:1", tmp_path / "x.toml")
    words = "docker buildx create --name b --driver docker-container --driver-opt image=kit:1 --buildkitd-config"
    make = [f"{words} {tmp_path}/x.toml --bootstrap"]
    asked: list[Command] = []

    def prepared(there: bool, settings: Settings = settings) -> list[str]:
        return [shlex.join(c) for c in buildx.prepare("", settings, lambda c: asked.append(c) or there)]  # type: ignore[func-returns-value]

    assert prepared(True) == []
    assert prepared(False) == make
    assert prepared(True, replace(settings, restart=True)) == ["docker buildx rm b", *make]
    assert asked[0] == ["docker", "buildx", "inspect", "b"]
    assert shlex.join(buildx.prune("ctx", settings)) == "docker --context ctx buildx prune --force --builder b"
    assert shlex.join(ENGINES["buildkit"].usage("tcp://x:1", settings)) == "buildctl --addr tcp://x:1 du"


@pytest.mark.parametrize(("programs", "environment", "found"), [
    ("buildctl docker podman buildah", {"BUILDKIT_HOST": "tcp://b:1234"}, "buildkit"),
    ("buildctl docker podman buildah", {}, "buildx"),
    ("podman buildah", {"BUILDKIT_HOST": "tcp://b:1234"}, "podman"),
    ("buildah", {}, "buildah"),
])  # fmt: skip
def test_the_first_engine_that_is_there(programs: str, environment: dict[str, str], found: str,
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("linuxkit.pkg.engines.buildkit.SOCKET", Path("/nonexistent"))
    assert choose("", "", environment, lambda command: command[0] in programs.split()).name == found


def test_engines_by_name_and_by_builder() -> None:
    def none(command: Command) -> bool:
        return False

    assert choose("podman", "tcp://b:1", {}, none).name == "podman"
    assert choose("", "tcp://b:1", {}, none).name == "buildkit"
    assert choose("", "arm-box", {}, none).name == "buildx"
    with pytest.raises(HostError, match="nothing on this machine builds Dockerfiles") as caught:
        choose("", "", {}, none)
    assert all(name in caught.value.hint for name in ("buildctl", "buildx", "podman", "buildah", "native recipe"))
    assert parse_builders("linux/arm64=tcp://b:1, linux/s390x=box") == {
        "linux/arm64": "tcp://b:1", "linux/s390x": "box",
    }  # fmt: skip


@pytest.mark.parametrize(("image", "name"), [
    ("docker.io/library/alpine:latest", "alpine"), ("alpine", "alpine"), ("docker.io/a/b:1", "a/b:1"),
    ("ghcr.io/a/b:latest", "ghcr.io/a/b"), (f"a/b@{DIGEST}", f"a/b@{DIGEST}"),
])  # fmt: skip
def test_names_as_buildkit_compares_them(image: str, name: str) -> None:
    assert familiar(image) == name


TEXT = """\
# syntax=docker/dockerfile:1
ARG TAG=3.22 BASE
ARG OTHER="${TAG:-x}-slim"
FROM --platform=$BUILDPLATFORM alpine:$TAG AS Build
ARG TAG=ignored
RUN --mount=type=bind,from=tools:1,target=/t \\
    # a comment in between
    echo <<EOF && true
FROM not/this
EOF
FROM scratch
COPY --from=build /a /b
COPY --from=0 /a /b
COPY --from=other/image:$NOPE /a /b
FROM ${BASE:-linuxkit/base:}${OTHER} \\
  as last
FROM last
from debian:${MISSING:+never}12
"""


def test_the_images_that_a_dockerfile_takes() -> None:
    found = dockerfile.bases(TEXT, ARM64, {}, host=Platform())
    assert [(b.image, b.platform.architecture) for b in found] == [
        ("alpine:3.22", "amd64"), ("tools:1", "arm64"), ("other/image:", "arm64"), ("linuxkit/base:3.22-slim", "arm64"),
        ("debian:12", "arm64"),
    ]  # fmt: skip
    assert found[0].written == "alpine:$TAG"
    given = dockerfile.bases(TEXT, ARM64, {"TAG": "1", "BASE": "me/x:"})
    assert [b.image for b in given if "me/" in b.image or "alpine" in b.image] == ["alpine:1", "me/x:1-slim"]
    ticked = "# escape=`\nFROM a`\n:1\n"
    assert [b.image for b in dockerfile.bases(ticked, ARM64, {})] == ["a:1"]


def test_build_arguments_name_other_packages(repository: Repository) -> None:
    arguments = repository.root / "args"
    repository.put({
        "pkg/a-b/build.yml": "image: a-b\nfiles: []\n", "pkg/c/build.yml": "image: x/c\nfiles: []\n",
        "pkg/.hidden/build.yml": "image: h\n", "pkg/file": "", "d/Dockerfile": "FROM scratch\n",
        "d/build.yml": "image: d\nbuildArgs: [A=1, 'B=@lkt:pkg:../pkg/a-b', 'X_%=@lkt:pkgs:../pkg/*']\n",
        "args": "# file\nA=2\nPKG_HASH=mine\n",
    })  # fmt: skip
    done = repository.pkg("build", "d", "--dry-run", "--engine", "buildx", "--platforms", "linux/arm64",
                          "--build-arg-file", str(arguments))  # fmt: skip
    a, c = (repository.tag(f"pkg/{name}") for name in ("a-b", "c"))
    lines = done.stdout.splitlines()
    words = next(shlex.split(line) for line in lines if line.startswith("docker"))
    given = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "--build-arg")
    assert given.pop("GOPKGVERSION").startswith("v0.0.0-20")
    assert given.pop("REVISION")
    assert given.pop("no_proxy") == "127.0.0.1"  # the environment's proxies
    assert given == {
        "A": "2", "B": f"linuxkit/a-b:{a}", "X_A_B": f"linuxkit/a-b:{a}", "X_X_C": f"linuxkit/x/c:{c}",
        "PKG_HASH": "mine", "PKG_IMAGE": f"linuxkit/d:{repository.tag('d')}",
        "SOURCE": "https://github.com/linuxkit/linuxkit",
    }  # fmt: skip
    assert any("pkg build --force" in line for line in lines)  # the one that is named by itself comes along


@pytest.mark.parametrize(("text", "message"), [
    ("X=@lkt:pkg:nowhere", "is not a package"),
    ("X=@lkt:pkgs:*", "needs a % for the names"),
    ("X=@lkt:other:y", "there are @lkt:pkg:DIR and @lkt:pkgs:GLOB"),
    ("NOVALUE", "is not NAME=value"),
])  # fmt: skip
def test_bad_build_arguments(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/build.yml").write_text("image: p\n")
    (tmp_path / "args").write_text(f"\n{text}\n")

    def name(directory: Path) -> Name:
        return name_of(read_package(directory))

    with pytest.raises(InputError) as caught:
        buildargs.resolve(buildargs.read_file(tmp_path / "args"), name)
    told = " ".join([caught.value.message, *map(str, caught.value.problems)])
    assert message in told
    assert "args:2" in told


@pytest.mark.parametrize("run", [
    'RUN echo $((1<<X))', 'RUN cat <<<"x"', "RUN cat <<< x", "RUN echo 'a <<EOF'", 'RUN echo "a <<EOF b"', "RUN x<<EOF",
    "RUN cat <<'E F'\nFROM no:1\nE F", "RUN cat <<-EOF\n\tFROM no:1\n\tEOF",
    "RUN 3<<A <<B x\nFROM no:1\nA\nFROM no:2\nB",
    "RUN\tcat <<E-F.1\nFROM no:1\nE-F.1", "COPY <<\"a\" /b\nFROM no:1\na",
])  # fmt: skip
def test_what_begins_a_here_document_and_what_ends_it(run: str) -> None:
    text = f"FROM\ta:1\n{run}\nFROM \t b:1\n"
    for written in (text, text.replace("\n", "\r\n")):
        assert [b.image for b in dockerfile.bases(written, ARM64, {})] == ["a:1", "b:1"]


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes("\ufeffFROM a:1\n".encode())
    assert [b.image for b in dockerfile.bases(dockerfile.read(tmp_path / "Dockerfile"), ARM64, {})] == ["a:1"]


def test_bases_come_from_the_cache(repository: Repository) -> None:
    made = make_image(Store(repository.cache), "me/base:1-arm64", tar_of(member("x", b"x")), platform=ARM64)
    repository.put({"d/Dockerfile": "ARG B=me/base:1\nFROM $B\nFROM other:1\n", "d/build.yml": "image: d\n"})
    words = ("build", "d", "--dry-run", "--engine", "buildkit", "--platforms", "linux/arm64")
    context = f"context:me/base:1=oci-layout://base0@{made.digest}"
    assert context in shlex.split(repository.pkg(*words).stdout)
    assert "oci-layout" not in repository.pkg(*words, "--ignore-cached").stdout
    assert "--oci-layout" not in repository.pkg(*words[:-1], "linux/amd64").stdout
