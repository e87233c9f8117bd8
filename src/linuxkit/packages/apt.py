"""The transport on machines with apt: apt-get fetches, unprivileged, with a state folder of our own.

apt knows this machine's mirrors, proxies and certificates. Its own lists, keys and preferences are not touched or used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, NetworkError, SpaceError
from linuxkit.packages.debian import Listing
from linuxkit.packages.index import Package
from linuxkit.packages.sources import Mirror


class Apt:
    """apt-get with a private state.

    Args:
        folder: where its lists and configuration are kept; one per suite and architecture.
        keys: files of public keys, ASCII-armoured, that the release files are signed with.
        component: the one of the archive that is looked into.

    Raises:
        HostError: there is no apt-get.
    """

    def __init__(
        self, folder: Path, mirror: Mirror, suite: str, architecture: str, keys: Sequence[Path],
        component: str = "main",
    ) -> None:  # fmt: skip
        self._tool = host.find_tool("apt-get", why="to fetch packages")
        self._folder, self._mirror, self._suite, self._architecture = folder.absolute(), mirror, suite, architecture
        self._keys, self._component = keys, component

    def _command(self, *words: str) -> list[str | Path]:
        folder = self._folder
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": folder / "parts",
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": folder / "parts",
            "Dir::State": folder / "state",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "Dir::Log": folder / "state",
            "APT::Architecture": self._architecture,
            "APT::Architectures::": self._architecture,
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "false",
            "Acquire::Retries": "3",
        }
        return [self._tool, "-q", *(word for k, v in settings.items() for word in ("-o", f"{k}={v}")), *words]

    def _prepare(self) -> None:
        for name in ("parts", "state", "lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        ring = self._folder / "archive.asc"
        ring.write_bytes(b"\n".join(path.read_bytes() for path in self._keys))
        lines = [f"deb [signed-by={ring}] {url} {suite} {self._component}\n"
                 for url, suite in self._mirror.suites(self._suite)]  # fmt: skip
        (self._folder / "sources.list").write_text("".join(lines))

    def update(self) -> None:
        """Raises: NetworkError."""
        self._prepare()
        try:
            host.run(self._command("update"), timeout=600, room=self._folder)
        except SpaceError:
            raise
        except HostError as e:
            raise NetworkError(
                f"the package lists could not be fetched: {e.message}",
                hint="check the network, or give another mirror with --debian-mirror", temporary=True,
            ) from e  # fmt: skip
        (self._folder / "lists" / "updated").write_bytes(b"")

    def listings(self) -> list[Listing]:
        if not (self._folder / "lists" / "updated").exists():
            return []
        self._prepare()
        done = host.run(
            self._command("indextargets", "--format", "$(SITE) $(RELEASE) $(FILENAME)", "Created-By: Packages"),
            timeout=60,
        )
        indexes: dict[str, Path] = {}
        for line in done.stdout.decode().splitlines():
            _, suite, name = line.split(" ", 2)
            indexes[suite] = Path(name)
        found = []
        for url, suite in self._mirror.suites(self._suite):
            signed = list((self._folder / "lists").glob(f"*_dists_{suite}_InRelease"))
            if len(signed) == 1:
                found.append(Listing(url, suite, signed[0], indexes.get(suite)))  # apt doesn't keep an empty index
        # not all of them are as good as none
        return found if len(found) == len(self._mirror.suites(self._suite)) else []

    def download(self, packages: Sequence[Package], folder: Path) -> None:
        """Raises: NetworkError."""
        words = [f"{p.name}:{p.architecture if p.architecture != 'all' else self._architecture}={p.version}"
                 for p in packages]  # fmt: skip
        try:
            host.run(self._command("download", *words), cwd=folder, timeout=3600, room=folder)
        except SpaceError:
            raise
        except HostError as e:
            raise NetworkError(
                f"packages could not be downloaded: {e.message}",
                hint="check the network, or give another mirror with --debian-mirror", temporary=True,
            ) from e  # fmt: skip
