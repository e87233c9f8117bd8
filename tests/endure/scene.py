"""What the long runs share: a cache with small images, a registry on loopback, the program as a user starts it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from linuxkit.oci.derived import Derived
from linuxkit.oci.export import export_image
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.store import Store
from support.builds import YAML, make_cache
from support.images import make_image, member, tar_of
from support.registry import Registry

#: A build of these parts of the kit takes a C compiler and nothing from a mirror.
KIT = "bootstage"


@dataclass
class Summary:
    """What a run found, as the one line that it prints."""

    name: str
    seed: int
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, what: str, many: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + many

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"fault: {text}", flush=True)

    def line(self) -> str:
        parts = [f"{many} {what}" for what, many in self.counts.items()]
        seconds = time.monotonic() - self.started
        return f"{self.name}: {', '.join(parts)}, {len(self.faults)} faults (seed {self.seed}, {seconds:.0f} s)"


@dataclass
class Scene:
    """A folder with a cache, an archive, YAML and a registry that has two images."""

    folder: Path
    registry: Registry
    cache: Path
    blank: Path  # the cache as it was made
    temporary: Path

    def commands(self, number: int) -> list[list[str]]:
        """Each kind of work once."""
        host = self.registry.host
        return [
            ["cache", "pull", f"{host}/test/a:1"], ["cache", "import", "c.tar"], ["build", "--offline", "x.yml"],
            ["build", "--offline", "--format", "kernel+squashfs", "--no-preflight", "x.yml"],
            ["lock", "--offline", "--output", f"{number}.lock", "x.yml"], ["kit", "build", "--force", KIT],
            ["cache", "push", f"{host}/test/c:1"],
        ]  # fmt: skip

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")}
        compiled = os.environ.get("ZIG_GLOBAL_CACHE_DIR") or str(Path.home() / ".cache/zig")
        own = {"LINUXKIT_CACHE": str(self.cache), "HOME": str(self.folder), "TMPDIR": str(self.temporary)}
        return kept | own | {"ZIG_GLOBAL_CACHE_DIR": compiled} | more

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "linuxkit", *words], cwd=self.folder, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, words: Sequence[str], timeout: float = 300) -> tuple[int, str]:
        child = self.start(words)
        try:
            said, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(child)
            return -1, f"no end after {timeout:.0f} s"
        return child.returncode, said

    def renew(self) -> None:
        """The cache as it was at first."""
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.copytree(self.blank, self.cache, symlinks=True)

    def left_over(self) -> list[str]:
        """Temporary files, in the cache and in TMPDIR."""
        found = [*self.cache.rglob(".tmp-*"), *self.temporary.iterdir()]
        return sorted(str(path.relative_to(self.folder)) for path in found)


def kill(child: subprocess.Popen[str]) -> None:
    """End a command and all that it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.communicate()


def noise(seed: int, layers: int, size: int = 300_000) -> list[bytes]:
    order = random.Random(seed)
    return [tar_of(member(f"file{n}", order.randbytes(size))) for n in range(layers)]


@contextmanager
def scene() -> Iterator[Scene]:
    """A scene of its own, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="endure-") as text, Registry() as registry:
        folder = Path(text)
        (folder / "x.yml").write_text(YAML)
        (folder / "tmp").mkdir()
        cache = make_cache(folder)
        made = Scene(folder, registry, cache, folder / "blank", folder / "tmp")
        store = Store(cache)
        image = make_image(store, f"{registry.host}/test/c:1", *noise(1, 3))
        with open(folder / "c.tar", "wb") as out:
            export_image(store, LayerCache(store, Derived(cache / "derived")), image, out, "oci", "example.com/c:1")
        make_image(store, f"{registry.host}/test/a:1", *noise(2, 3))
        for words in (["cache", "push", f"{registry.host}/test/a:1"], ["cache", "rm", f"{registry.host}/test/a:1"],
                      ["cache", "gc", "--min-age", "0"]):  # fmt: skip
            status, said = made.run(words)
            assert status == 0, said
        shutil.copytree(cache, made.blank, symlinks=True)
        yield made
