"""Podman, and Buildah, whose library builds for both: the flags are the same.

Base images come as `docker-image://oci:DIR`. https://github.com/containers/buildah
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from linuxkit.pkg.engines.model import Build, Command, Settings, Works, each, familiar, named


def _build(start: Command, build: Build, *more: str) -> Command:
    offline = [] if build.network or "chroot" in more else ["--network", "none"]
    contexts: dict[str, str] = {}
    for base in build.bases:
        names = (base.image, familiar(base.image), base.written)  # Buildah looks before it fills in variables
        contexts |= {name: f"docker-image://oci:{base.layout}" for name in names if "=" not in name}
    return [
        *start, "build", *more, "--format", "oci", "--platform", str(build.platform),
        *offline, "--no-cache" if build.no_cache else "--layers",
        *named(build.arguments, "--build-arg"), *named(build.labels, "--label"), *named(contexts, "--build-context"),
        *each(build.secrets, "--secret"), *each(build.ssh, "--ssh"), "--tag", build.name,
        "--file", str(build.context / build.dockerfile), str(build.context),
    ]  # fmt: skip


class Podman:
    """podman build."""

    name = "podman"
    hint = "on Debian: apt-get install podman"

    def there(self, environment: Mapping[str, str], works: Works) -> bool:
        return works(["podman", "--version"])

    def prepare(self, builder: str, settings: Settings, works: Works) -> list[Command]:
        return []

    def commands(self, build: Build, settings: Settings) -> list[Command]:
        start = self._start(build.builder)
        save = [*start, "save", "--quiet", "--format", "oci-archive", "--output", str(build.output), build.name]
        return [_build(start, build), save]

    def note(self, build: Build) -> str:
        return ""

    def usage(self, builder: str, settings: Settings) -> Command:
        return [*self._start(builder), "system", "df"]

    def prune(self, builder: str, settings: Settings) -> Command:
        return [*self._start(builder), "image", "prune", "--force", "--build-cache"]

    @staticmethod
    def _start(builder: str) -> Command:
        where = "--url" if "://" in builder else "--connection"
        return ["podman", *([where, builder] if builder else [])]


class Buildah:
    """buildah build: no daemon, and no privilege where user namespaces are allowed.

    Without an OCI runtime it isolates with chroot, which does not keep RUN steps from the network.
    """

    name = "buildah"
    hint = "on Debian: apt-get install buildah"

    def there(self, environment: Mapping[str, str], works: Works) -> bool:
        return works(["buildah", "--version"])

    def prepare(self, builder: str, settings: Settings, works: Works) -> list[Command]:
        return []

    def commands(self, build: Build, settings: Settings) -> list[Command]:
        alone = ["--isolation", "chroot"] if self._alone() else []
        push = ["buildah", "push", "--quiet", build.name, f"oci-archive:{build.output}:{build.name}"]
        return [_build(["buildah"], build, *alone), push]

    def note(self, build: Build) -> str:
        if build.network or not self._alone():
            return ""
        return "buildah has no crun or runc here: RUN steps are not kept from the network"

    @staticmethod
    def _alone() -> bool:
        return not (shutil.which("crun") or shutil.which("runc"))

    def usage(self, builder: str, settings: Settings) -> Command:
        return ["buildah", "images", "--all"]

    def prune(self, builder: str, settings: Settings) -> Command:
        return ["buildah", "rmi", "--prune", "--force"]
