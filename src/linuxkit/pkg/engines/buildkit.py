"""BuildKit through buildctl: a daemon on this machine or elsewhere.

Found by --builders, $BUILDKIT_HOST, or its socket. https://github.com/moby/buildkit
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from linuxkit.pkg.engines.model import Build, Command, Settings, Works, each, familiar

SOCKET = Path("/run/buildkit/buildkitd.sock")


class BuildKit:
    """buildctl."""

    name = "buildkit"
    hint = "install buildctl and start buildkitd, or say where one is: BUILDKIT_HOST=tcp://HOST:1234"

    def there(self, environment: Mapping[str, str], works: Works) -> bool:
        own = Path(environment.get("XDG_RUNTIME_DIR") or "/nonexistent", "buildkit", "buildkitd.sock")
        somewhere = bool(environment.get("BUILDKIT_HOST")) or SOCKET.exists() or own.exists()
        return somewhere and works(["buildctl", "--version"])

    def prepare(self, builder: str, settings: Settings, works: Works) -> list[Command]:
        return []

    def commands(self, build: Build, settings: Settings) -> list[Command]:
        file = build.context / build.dockerfile
        options = {
            "filename": file.name, "platform": str(build.platform),
            "force-network-mode": "sandbox" if build.network else "none",
            **({"no-cache": ""} if build.no_cache else {}),
            **{f"build-arg:{name}": value for name, value in build.arguments.items()},
            **{f"label:{name}": value for name, value in build.labels.items()},
            **({"attest:sbom": f"generator={build.sbom}" if build.sbom else ""} if build.sbom is not None else {}),
        }  # fmt: skip
        layouts = []
        for number, base in enumerate(build.bases):
            layouts += ["--oci-layout", f"base{number}={base.layout}"]
            options.setdefault(f"context:{familiar(base.image)}", f"oci-layout://base{number}@{base.digest}")
        return [[
            *self._start(build.builder), "build", "--progress", build.progress, "--frontend", "dockerfile.v0",
            "--local", f"context={build.context}", "--local", f"dockerfile={file.parent}",
            *(word for name, value in options.items() for word in ("--opt", f"{name}={value}")),
            *layouts, *each(build.secrets, "--secret"), *each(build.ssh, "--ssh"),
            "--output", f"type=oci,name={build.name},dest={build.output}",
        ]]  # fmt: skip

    def note(self, build: Build) -> str:
        return ""

    def usage(self, builder: str, settings: Settings) -> Command:
        return [*self._start(builder), "du"]

    def prune(self, builder: str, settings: Settings) -> Command:
        return [*self._start(builder), "prune"]

    @staticmethod
    def _start(builder: str) -> Command:
        return ["buildctl", *(["--addr", builder] if builder else [])]
