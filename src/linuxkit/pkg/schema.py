"""Every key of build.yml that LinuxKit knows, once: its type, its meaning, its place in the model.

The keys of native recipes (`debian`, `c`, `files`, …) are packages/recipe.py's; docs/packages.md has both.
"""

from __future__ import annotations

from linuxkit.config.schema import SETTINGS
from linuxkit.config.types import Bool, Field, ListOf, Object, Str
from linuxkit.pkg import model

_ARCH = Str(pattern="[a-z0-9_]+", form="an architecture in Go's names, such as arm64")

DOCKER_IMAGES = Object("docker-images", (
    Field("target", "target", Str(nonempty=True), "Archive to write them to, below the package, as `docker save` does.",
          example="images.tar"),
    Field("target-dir", "target_dir", Str(nonempty=True), "Or a directory: an archive for each, `NAME@DIGEST.tar`.",
          example="images"),
    Field("from-file", "from_file", Str(nonempty=True), "File of the package that names them, one a line."),
    Field("list", "list", ListOf(Str(nonempty=True)), "Or their names, each with its digest.",
          example='["nginx@sha256:…"]'),
), model.DockerImages, "Images that the build finds as archives among its files.")

DEPENDS = Object("depends", (
    Field("docker-images", "docker_images", DOCKER_IMAGES, "Images that the build finds as archives among its files."),
), dict, "What has to be there before the build.")

PACKAGE = Object("package", (
    Field("image", "image", Str(nonempty=True), "The image's name, without organisation and tag.", required=True,
          example="sshd"),
    Field("org", "org", Str(nonempty=True), "What stands in front of the name: an organisation, or a registry with a "
          "path.", "linuxkit", example="registry.example/team"),
    Field("tag", "tag", Str(nonempty=True), "The tag. `{{.Hash}}` in it is the content's hash.", "{{.Hash}}",
          example='"v1-{{.Hash}}"'),
    Field("dockerfile", "dockerfile", Str(nonempty=True), "The Dockerfile, below the package.", "Dockerfile"),
    Field("arches", "arches", ListOf(_ARCH), "Architectures it is built for. An empty list: none.",
          "amd64, arm64, riscv64; of a native recipe amd64, arm64", example="[amd64, arm64]"),
    Field("extra-sources", "extra_sources", ListOf(Str()), "`source:destination`: files from elsewhere in the git "
          "repository that the build finds at `destination`; links and `..` may not lead out of the repository. "
          "They count for the hash.", "none",
          example='["../../lib:lib"]'),
    Field("gitrepo", "git_repo", Str(), "Address of the sources, for the label `org.opencontainers.image.source`.",
          "https://github.com/linuxkit/linuxkit"),
    Field("network", "network", Bool(), "Let the Dockerfile's RUN steps use the network.", "false"),
    Field("disable-cache", "disable_cache", Bool(), "Run every step of the Dockerfile again.", "false"),
    Field("config", "config", SETTINGS, "What the image asks for when a YAML uses it: the keys of a container, without "
          "`name` and `image`. Becomes the label `org.mobyproject.config`.", "none"),
    Field("buildArgs", "build_args", ListOf(Str(nonempty=True)), "`NAME=value` for the Dockerfile's ARG. Values may "
          "name other packages: `@lkt:pkg:DIR`, `@lkt:pkgs:GLOB`.", "none", example='["VERSION=1.2"]'),
    Field("depends", "depends", DEPENDS, "What has to be there before the build.", "nothing"),
), doc="build.yml of a package.")  # fmt: skip
