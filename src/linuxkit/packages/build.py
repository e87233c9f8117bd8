"""From a recipe to an image in the store: one layer, sorted, with fixed times, and a configuration."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from linuxkit.encode import tar
from linuxkit.encode.compress import Codec, Compressor
from linuxkit.entry import FIXED_MTIME, Entry, Extent, Kind, Source
from linuxkit.errors import InputError
from linuxkit.oci.files import host_errors
from linuxkit.oci.media import OCI_LAYER_ZSTD, Descriptor, Image, ImageConfig, Platform
from linuxkit.oci.store import Store
from linuxkit.oci.workspace import workspace
from linuxkit.packages import kmod, slice, toolchain
from linuxkit.packages.debian import Debian
from linuxkit.packages.image import ordered, own
from linuxkit.packages.inside import copy_sources
from linuxkit.packages.origin import Origin, Pins
from linuxkit.packages.recipe import FromAlpine, Recipe

CONFIG_LABEL = "org.mobyproject.config"
#: Labels: what files were taken from, `NAME=VERSION …` and `NAME=SHA256 …` sorted by name, and Debian's release.
PACKAGES, DIGESTS, SUITE = (f"org.linuxkit.debian.{name}" for name in ("packages", "digests", "suite"))
#: The same for every archive.
_LISTS = tuple(f"org.linuxkit.{kind}.{name}" for kind in ("debian", "alpine") for name in ("packages", "digests"))
_LEVEL = 6  # of zstd: half a second for the largest package more than 3, and a tenth smaller


class Builder:
    """Builds packages for one architecture, sharing what they have in common. Several threads may build at once.

    Args:
        store: where images go.
        architecture: in Go's names.
        debian, alpine: the archives, for that architecture.
        guest: the folder of C sources.
        compiler_cache: where the C compiler keeps its own.
        say: told what takes a while.

        work: below it is a folder for unpacked packages, until the context is left.

    A context manager.
    """

    def __init__(self, store: Store, architecture: str, debian: Callable[[str], Debian], guest: Path,
                 compiler_cache: Path, say: Callable[[str], None] = lambda _: None,
                 alpine: Callable[[FromAlpine], Origin] | None = None, *, work: Path) -> None:  # fmt: skip
        self._store, self._architecture, self._debian, self._alpine = store, architecture, debian, alpine
        self._guest, self._compiler_cache, self._say = guest, compiler_cache, say
        self._unpacked: dict[str, tuple[threading.Lock, dict[str, Entry]]] = {}
        self._lock = threading.Lock()
        self._work, self._stack = work, ExitStack()
        self._folder = work

    def __enter__(self) -> Builder:
        with host_errors("cannot work in the cache at", self._work):
            self._folder = self._stack.enter_context(workspace(self._work))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def origin(self, recipe: Recipe) -> Origin:
        """The archive that a recipe draws on.

        Raises:
            InputError, HostError: it can't be had.
        """
        if recipe.alpine is None:
            return self._debian(recipe.debian.suite)
        if self._alpine is None:
            raise InputError(f"{recipe.name}: Alpine's packages are not for the kit")
        return self._alpine(recipe.alpine)

    def newest(self, recipe: Recipe) -> list[Any]:
        """`packages`, by lists that are fetched anew."""
        self.origin(recipe).renew()
        return self.packages(recipe)

    def packages(self, recipe: Recipe, pins: Pins | None = None) -> list[Any]:
        """The archive's packages that a recipe draws on, by name; with `pins`, exactly those."""
        if pins is not None:
            return list(self.origin(recipe).pinned(pins, recipe.name)) if pins else []
        wanted = recipe.alpine or recipe.debian
        names = [*wanted.packages, *wanted.libraries]
        if not names and recipe.kernel is None:
            return []
        origin = self.origin(recipe)
        if recipe.kernel is not None:
            meta = self._debian(recipe.debian.suite).closure([_spelled(recipe.kernel.package, origin)])[0]
            names += [r.name for group in meta.depends for r in group if r.name.startswith("linux-image-")][:1]
        found = origin.closure((_spelled(name, origin) for name in names), wanted.without)
        return sorted(found, key=lambda p: str(p.name))

    def build(self, recipe: Recipe, reference: str, pins: Pins | None = None, *, base: Image | None = None,
              sources: Path | None = None, kit: bool = False) -> Image:  # fmt: skip
        """Make the image of a recipe and put it into the store under `reference`.

        Args:
            pins: the Debian packages to take, instead of the newest ones that the recipe asks for.
            base: what `recipe.base` names; its layers lie below, its configuration fills in what the recipe leaves out.
            sources: the folder of C sources, when they are not the kit's.
            kit: it is a package of the kit, under the kit's name for it.

        Raises:
            LinuxkitError: of any kind; the store has the whole image or nothing of it by that name.
        """
        if self._architecture not in recipe.arches:
            what = recipe.name if sources else f"kit://{recipe.name}"
            raise InputError(f"{what} is not made for {self._architecture}",
                             hint=f"it is for {', '.join(recipe.arches)}")  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="build-", dir=self._folder) as folder:
            code = sources
            if sources is not None and recipe.programs:  # the compiler follows links, and its messages quote files
                code = Path(folder) / "sources"
                copy_sources(sources, code)
            entries, labels = self._entries(recipe, Path(folder), pins, code or self._guest)
            layer, diff_id = self._layer(ordered(entries))
        labels |= {**recipe.labels, **({CONFIG_LABEL: recipe.config} if recipe.config else {})}
        below = base.config if base is not None else ImageConfig()
        config: dict[str, Any] = {
            "config": _drop_empty(_over(below, recipe) | {"Labels": _merged(below.labels, labels)}),
            "rootfs": {"type": "layers", "diff_ids": [*below.diff_ids, diff_id]},
        }  # fmt: skip
        layers = [*(base.layers if base is not None else ()), layer]
        return self._store.put_image(reference, Platform("linux", self._architecture), config, layers, kit=kit)

    def _entries(
        self, recipe: Recipe, folder: Path, pins: Pins | None, sources: Path
    ) -> tuple[dict[str, Entry], dict[str, str]]:
        out: dict[str, Entry] = {}
        labels = {"org.opencontainers.image.title": recipe.name}
        if recipe.description:
            labels["org.opencontainers.image.description"] = recipe.description
        packages = self.packages(recipe, pins)
        if packages:
            origin = self.origin(recipe)
            files = origin.fetch(packages)
            tree = slice.merge((p.name, self._nodes(origin, p, files[p.name])) for p in packages)
            self._from_archive(recipe, origin, packages, tree, out, labels, folder)
        if recipe.programs:
            labels |= {toolchain.COMPILER: toolchain.identity(), toolchain.LIBC: toolchain.libc()}
        for program in recipe.programs:
            first = "" if self._compiler_cache.is_dir() else "; the first time this takes half a minute"
            self._say(f"compiling {recipe.name}/{program.path} for {self._architecture}{first}")
            path = folder / program.path.replace("/", "_")
            toolchain.compile_program(self._architecture, sources, program.sources, program.flags, path,
                                      cache=self._compiler_cache, confined=sources != self._guest)  # fmt: skip
            source = Extent(str(path), 0, path.stat().st_size)
            out[program.path] = Entry(program.path, Kind.FILE, program.mode, mtime=FIXED_MTIME, source=source)
        out.update(own(recipe, folder))
        return out, labels

    def _from_archive(self, recipe: Recipe, origin: Origin, packages: list[Any], tree: slice.Tree,
                      out: dict[str, Entry], labels: dict[str, str], folder: Path) -> None:  # fmt: skip
        wanted = recipe.alpine or recipe.debian

        def spelled(text: str) -> str:
            return _spelled(text, origin)

        moves = {spelled(a): b for a, b in wanted.move.items()}
        kept = slice.keep(tree, [spelled(p) for p in wanted.keep], moves)
        old = {new: path for path, new in moves.items()}
        data = slice.keep(tree, [spelled(p) for p in wanted.data], {})
        used = {tree.owner[slice.real(old.get(p, p))] for p in (*kept, *data)}
        for path, pattern in wanted.concat.items():
            parts = slice.keep(tree, [spelled(pattern)], {})
            used |= {tree.owner[p] for p in parts}
            out[path] = Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=_joined(parts, folder))
        for path, (entry, package) in slice.closure(
            tree, kept, origin.spelled["{triplet}"], self._architecture, origin.inherent
        ).items():
            out[path] = entry
            used.add(package)
        if recipe.kernel is not None:
            version, nodes = kmod.image(tree, recipe.kernel, folder)
            out.update(nodes)
            labels["org.linuxkit.kernel.version"] = version
            used |= {tree.owner[p] for p in kmod.kernels(tree)}
        out.update(kept | data)
        taken = {p.name: p for p in packages if p.name in used}  # the others' absence would change nothing
        out.update(origin.records(tree, taken.values()))
        label = f"org.linuxkit.{origin.kind}"
        labels[f"{label}.packages"] = " ".join(f"{p.name}={p.version}" for p in taken.values())
        labels[f"{label}.digests"] = " ".join(f"{p.name}={p.digest}" for p in taken.values())
        if recipe.alpine is not None:
            labels[f"{label}.branch"] = recipe.alpine.branch
        else:
            labels[SUITE] = recipe.debian.suite.partition("/")[0]
        named = [spelled(n) for n in (*wanted.packages, *wanted.libraries)]
        first = [n for n in (*named, *(n for n in taken if n.startswith("linux-image-")), *taken) if n in taken]
        labels["org.opencontainers.image.version"] = taken[first[0]].version if first else ""

    def _nodes(self, origin: Origin, package: Any, file: Path) -> dict[str, Entry]:
        """A package's nodes, unpacked once however many recipes want them."""
        with self._lock:
            lock, nodes = self._unpacked.setdefault(package.digest, (threading.Lock(), {}))
        with lock:
            if not nodes:
                nodes.update(origin.unpack(package, file, self._folder / f"{file.stem}.tar"))
        return nodes

    def _layer(self, entries: list[Entry]) -> tuple[Descriptor, str]:
        """Write the layer; its descriptor and the digest of the tar inside."""
        with self._store.write_blob(OCI_LAYER_ZSTD) as blob, Compressor(blob, Codec.ZSTD, _LEVEL) as packed:
            both = _Both(packed)
            tar.write(entries, both)
            both.write(tar.END)
        return blob.descriptor, f"sha256:{both.digest.hexdigest()}"


class _Both:
    """A sink that hashes what it hands on."""

    def __init__(self, out: Compressor) -> None:
        self._out = out
        self.digest = hashlib.sha256()

    def write(self, data: bytes, /) -> int:
        self.digest.update(data)
        return self._out.write(data)


def _spelled(text: str, origin: Origin) -> str:
    """A recipe's text with the archive's words for the architecture."""
    for word, value in origin.spelled.items():
        text = text.replace(word, value)
    return text


def _joined(parts: dict[str, Entry], folder: Path) -> Source:
    """Files put end to end in the order of their names, each closed by a newline."""
    path = folder / "joined"
    count = 0
    with path.open("ab") as out:
        start = out.tell()
        for name in sorted(parts):
            source = parts[name].source
            if source is not None:
                with source.open() as stream:
                    data = stream.read()
                count += out.write(data if data.endswith(b"\n") else data + b"\n")
    return Extent(str(path), start, count)


def _over(below: ImageConfig, recipe: Recipe) -> dict[str, Any]:
    """What runs: a command goes with its entry point, so those of the base hold only together."""
    own = bool(recipe.entrypoint or recipe.cmd)
    named = {text.partition("=")[0] for text in recipe.env}
    return {
        "Entrypoint": list(recipe.entrypoint if own else below.entrypoint),
        "Cmd": list(recipe.cmd if own else below.cmd),
        "Env": [*(text for text in below.env if text.partition("=")[0] not in named), *recipe.env],
        "WorkingDir": recipe.workdir or below.working_dir,
    }


def _merged(below: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of an image on a base: the lists of packages are joined."""
    both = {name: " ".join(sorted({*below[name].split(), *labels[name].split()}))
            for name in _LISTS if name in below and name in labels}  # fmt: skip
    return {**below, **labels, **both}


def _drop_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
