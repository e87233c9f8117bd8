"""From packages that the user names to all that have to be there, and which comes first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from linuxkit.errors import InputError, ReservedNameError
from linuxkit.oci.media import Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.pkg import buildargs, dockerfile
from linuxkit.pkg.model import Package
from linuxkit.pkg.naming import Name, Naming, name_of
from linuxkit.pkg.parse import read_package
from linuxkit.pkg.request import Job, Request

PKG = "@pkg:"


def make_jobs(packages: Iterable[Package], naming: Naming, request: Request) -> list[Job]:
    """The packages, and those that they name by directory: as `base:`, or with @lkt:pkg: among their build arguments.

    What the flags say about names holds for the packages that the user named; the others are named as build.yml says.

    Raises:
        InputError: a package is wrong, or there is a Dockerfile missing.
    """
    return _Collector(naming, request).collect(packages)


class _Collector:
    def __init__(self, naming: Naming, request: Request) -> None:
        self._naming, self._request = naming, request
        self._names: dict[Path, Name] = {}
        self._jobs: dict[Path, Job] = {}
        self._needs: dict[Path, set[Path]] = {}

    def collect(self, packages: Iterable[Package]) -> list[Job]:
        asked = {package.directory.resolve(): package for package in packages}
        self._names.update({folder: name_of(package, self._naming) for folder, package in asked.items()})
        for folder, package in asked.items():
            self._add(folder, package, True)
        by_name = {job.name.full: folder for folder, job in self._jobs.items()}
        jobs = []
        for folder, job in self._jobs.items():
            below = {self._jobs[other].name.full for other in self._needs[folder] if other in self._jobs}
            below |= {name for name in _taken(job) if name in by_name}
            jobs.append(replace(job, needs=frozenset(below - {job.name.full})))
        return jobs

    def _name(self, directory: Path) -> Name:
        folder = directory.resolve()
        if folder not in self._names:
            plain = Naming(self._naming.build_file, commit=self._naming.commit)
            self._names[folder] = name_of(read_package(directory, self._naming.build_file), plain)
        return self._names[folder]

    def _add(self, folder: Path, package: Package, asked: bool) -> None:
        arguments: Mapping[str, str] = {}
        needed: list[Path] = []
        self._needs[folder] = set()
        base = package.recipe.base if package.recipe is not None else ""
        if package.recipe is not None:
            if base.startswith(PKG):
                needed.append(package.directory / base.removeprefix(PKG))
                base = self._name(needed[0]).full
        else:
            dockerfile.read(package.directory / package.dockerfile)
            written = buildargs.written(package, self._request.arg_files)
            automatic = buildargs.automatic(package, self._names[folder])
            arguments = automatic | buildargs.resolve(written, self._name)
            needed += buildargs.needs(written)
            others = (d for a in written if a.value.startswith(buildargs.MANY) for d in buildargs.found_by(a))
            self._needs[folder] |= {path.resolve() for path in others}
        self._jobs[folder] = Job(package, self._names[folder], self._arches(package), asked, arguments, base)
        for directory in needed:
            other = directory.resolve()
            self._needs[folder].add(other)
            if other not in self._jobs:
                self._add(other, read_package(directory, self._naming.build_file), False)

    def _arches(self, package: Package) -> tuple[str, ...]:
        wanted, skip = self._request.arches, self._request.skip
        return tuple(a for a in package.arches if (not wanted or a in wanted) and a not in skip)


def _taken(job: Job) -> set[str]:
    """The full names of the images that a Dockerfile takes."""
    if job.package.recipe is not None:
        return set()
    text = dockerfile.read(job.package.directory / job.package.dockerfile)
    found = set()
    for arch in job.arches:
        for base in dockerfile.bases(text, Platform("linux", arch), job.arguments):
            try:
                found.add(parse_reference(base.image).tagged)
            except ReservedNameError:
                raise
            except InputError:
                continue  # the engine will say what it is
    return found

