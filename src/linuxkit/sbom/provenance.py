"""What a build was made from: SLSA provenance v1 in an in-toto statement v1.

    subject                 the output files, by sha256
    predicate               https://slsa.dev/provenance/v1
      buildDefinition       the flags; every input by digest: YAML, images, the .debs of kit packages, files
      runDetails            the builder and its version

There is no clock, host name or random number in it: the same build gives the same statement. A copy inside the image
cannot name the image, so its subject is the plan of the build without that copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from linuxkit.entry import Kind
from linuxkit.oci.media import Image
from linuxkit.plan.model import BuildPlan, PlannedFile
from linuxkit.sbom import kit
from linuxkit.sbom import purl as purls

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:linuxkit:build:v1"
BUILDER = "urn:linuxkit:builder:local"
NAME = "provenance.json"


@dataclass(frozen=True, slots=True)
class Input:
    """A YAML file: how it was named, and the sha256 of its content."""

    name: str
    digest: str


@dataclass(frozen=True)
class Provenance:
    """What a statement says beyond the plan, and where it goes.

    inputs      YAML files, in order.
    parameters  the flags that decide the result, by name.
    versions    of this program and of what compresses, by name.
    builder     who vouches for the build: a URI.
    home        the user's home folder: paths in it are written with `~`.
    file        written there, with the outputs as subjects.
    embedded    the path of a copy in the image; empty for none.
    """

    inputs: Sequence[Input]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    builder: str = BUILDER
    home: str = ""
    file: Path | None = None
    embedded: str = ""

    def embed(self, plan: BuildPlan) -> BuildPlan:
        """The plan, with the copy among its files when one is wanted."""
        if not self.embedded:
            return plan
        data = encode(self.statement(plan, [("plan", plan.digest)]))
        copy = PlannedFile(self.embedded, Kind.FILE, 0o644, data=data, origin=("linuxkit.provenance", "provenance"))
        return replace(plan, files=(*plan.files, copy))

    def statement(self, plan: BuildPlan, subjects: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The statement about (name, `sha256:<hex>`) pairs."""
        return {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": _digest(digest)} for name, digest in subjects],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": dict(self.parameters),
                    "internalParameters": {"plan": plan.digest},
                    "resolvedDependencies": [*self._files(plan), *_images(plan)],
                },
                "runDetails": {"builder": {"id": self.builder, "version": dict(self.versions)}},
            },
        }  # fmt: skip

    def _files(self, plan: BuildPlan) -> Iterator[dict[str, Any]]:
        for given in self.inputs:
            named = {"uri": given.name} if "://" in given.name else {"name": self._shown(given.name)}
            yield {**named, "digest": _digest(given.digest), "annotations": {"role": "configuration"}}
        sources = {f.source.path: f.source.digest for f in plan.files if f.source is not None}
        for path, digest in sorted(sources.items()):
            yield {"name": self._shown(path), "digest": _digest(digest), "annotations": {"role": "file"}}

    def _shown(self, path: str) -> str:
        """A path; one in the home folder with `~`."""
        home = self.home.rstrip("/")
        return f"~{path[len(home):]}" if home and path.startswith(f"{home}/") else path


def encode(statement: Mapping[str, Any]) -> bytes:
    """A statement as it is written: indented, UTF-8, with a newline at its end."""
    return json.dumps(statement, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def images_of(plan: BuildPlan) -> list[tuple[str, Image]]:
    """(where it is asked for, image) of everything that a plan consists of; what shares a tree stands there once."""
    found = [("kernel", plan.kernel.image)] if plan.kernel else []
    found += [(f"init[{n}]", tree.image) for n, tree in enumerate(plan.init)]
    for volume in plan.volumes:
        image = volume.layout or (volume.tree.image if volume.tree else None)
        found += [(f"volumes/{volume.name}", image)] if image else []
    found += [(f"{bundle.section}/{bundle.name}", bundle.tree.image) for bundle in plan.bundles if bundle.tree]
    return found + [("boot loader", image) for _, image in plan.loaders]


def _images(plan: BuildPlan) -> Iterator[dict[str, Any]]:
    """Images by their manifests, each once; after each kit package the Debian packages that it was cut from."""
    places: dict[str, list[str]] = {}
    images: dict[str, Image] = {}
    for place, image in images_of(plan):
        images.setdefault(image.digest, image)
        places.setdefault(image.digest, []).append(place)
    debs: set[str] = set()
    for digest, image in images.items():
        annotations: dict[str, Any] = {"role": "image", "reference": image.reference, "usedAs": places[digest]}
        if image.index is not None and not image.reference.startswith("linuxkit.kit/"):  # that is this machine's own
            annotations["index"] = image.index.digest
        if compiler := kit.compiler(image.config.labels):
            annotations["compiler"] = compiler
        yield {"uri": purls.image_purl(image), "digest": _digest(digest), "annotations": annotations}
        release = kit.distribution(image.config.labels)
        for package in kit.parse(image.config.labels, image.platform.architecture).packages:
            locator = purls.purl(package, release)
            if locator not in debs:
                debs.add(locator)
                sums = {"digest": {"sha256": package.checksums[0][1]}} if package.checksums else {}
                yield {"uri": locator, **sums, "annotations": {"role": "debian package", "of": image.reference}}


def _digest(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}
