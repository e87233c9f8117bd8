"""Docker buildx: BuildKit in a container of Docker's, in Kubernetes, or elsewhere, as `docker buildx create` made it.

A builder that does not exist yet is made with the driver docker-container. https://docs.docker.com/build/builders
"""

from __future__ import annotations

from collections.abc import Mapping

from linuxkit.pkg.engines.model import Build, Command, Settings, Works, each, familiar, named


class Buildx:
    """docker buildx."""

    name = "buildx"
    hint = "install Docker with its buildx plugin, and start it"

    def there(self, environment: Mapping[str, str], works: Works) -> bool:
        return works(["docker", "buildx", "version"]) and works(["docker", "info"])

    def prepare(self, builder: str, settings: Settings, works: Works) -> list[Command]:
        start = self._start(builder)
        found = works([*start, "inspect", settings.name])
        if found and not settings.restart:
            return []
        config = ["--buildkitd-config", str(settings.config)] if settings.config else []
        make = [
            *start, "create", "--name", settings.name, "--driver", "docker-container",
            "--driver-opt", f"image={settings.image}", *config, "--bootstrap",
        ]  # fmt: skip
        return [[*start, "rm", settings.name], make] if found else [make]

    def commands(self, build: Build, settings: Settings) -> list[Command]:
        contexts: dict[str, str] = {}
        for base in build.bases:
            contexts.setdefault(familiar(base.image), f"oci-layout://{base.layout}@{base.digest}")
        sbom = [] if build.sbom is None else [f"--sbom=generator={build.sbom}" if build.sbom else "--sbom=true"]
        return [[
            *self._start(build.builder), "build", "--builder", settings.name, "--progress", build.progress,
            "--platform", str(build.platform), "--network", "default" if build.network else "none",
            *(["--no-cache"] if build.no_cache else []), *named(build.arguments, "--build-arg"),
            *named(build.labels, "--label"), *named(contexts, "--build-context"), *each(build.secrets, "--secret"),
            *each(build.ssh, "--ssh"), "--provenance=false", *sbom, "--tag", build.name,
            "--output", f"type=oci,dest={build.output}", "--file", str(build.context / build.dockerfile),
            str(build.context),
        ]]  # fmt: skip

    def note(self, build: Build) -> str:
        return ""

    def usage(self, builder: str, settings: Settings) -> Command:
        return [*self._start(builder), "du", "--builder", settings.name]

    def prune(self, builder: str, settings: Settings) -> Command:
        return [*self._start(builder), "prune", "--force", "--builder", settings.name]

    @staticmethod
    def _start(builder: str) -> Command:
        return ["docker", *(["--context", builder] if builder else []), "buildx"]
