"""Indexes, manifests and configurations: JSON from strangers, checked while it becomes dataclasses. Pure.

https://github.com/opencontainers/image-spec v1.1: image-index.md, manifest.md, config.md; Docker's schema 2 forms of
them have the same fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from linuxkit.errors import ImageError
from linuxkit.foreign import read_json
from linuxkit.oci.media import Descriptor, ImageConfig, ImageHealthcheck, Platform, go_architecture
from linuxkit.oci.reference import is_digest

MAX_MANIFEST = 4 << 20  # bytes of an index or manifest; what registries promise to take
MAX_CONFIG = 8 << 20
MAX_LAYERS = 512
MAX_HEALTH = 24 * 3600 * 10**9  # nanoseconds of any time of a health check
MAX_SIZE = 1 << 40  # bytes of any one blob


def encode(document: Any) -> bytes:
    """JSON as this project writes it: sorted keys, no blanks; the same bytes each time."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises:
        ImageError: it is not one, or nests as no honest document does.
    """
    try:
        document = read_json(data)
    except ValueError as e:
        raise ImageError(f"{where}: not valid JSON: {str(e)[:120]}") from e
    if not isinstance(document, dict):
        raise ImageError(f"{where}: a JSON object is expected")
    return document


def text(document: Mapping[str, Any], key: str, where: str) -> str:
    """A string field; empty when absent or null."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImageError(f"{where}: {key} must be a string")
    return value


def texts(document: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A list of strings; empty when absent or null."""
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, str):  # schema 1 leftovers: a bare string for a list of one
        return (value,)
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ImageError(f"{where}: {key} must be a list of strings")
    return tuple(value)


def mapping(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """An object field; empty when absent or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ImageError(f"{where}: {key} must be an object")
    return value


def objects(document: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """A list of objects; empty when absent or null."""
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise ImageError(f"{where}: {key} must be a list of objects")
    return value


def strings(document: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """An object of strings; empty when absent or null."""
    value = mapping(document, key, where)
    if not all(isinstance(v, str) for v in value.values()):
        raise ImageError(f"{where}: the values of {key} must be strings")
    return value


def parse_descriptor(document: Mapping[str, Any], where: str) -> Descriptor:
    """A descriptor, with its digest and size checked for form.

    Raises:
        ImageError: a field is missing or of the wrong type.
    """
    digest, size = text(document, "digest", where), document.get("size")
    if not is_digest(digest):
        raise ImageError(f"{where}: '{digest[:100]}' is not a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise ImageError(f"{where}: the size of {digest} is not a sensible number")
    platform = mapping(document, "platform", where)
    return Descriptor(
        text(document, "mediaType", where), digest, size,
        parse_platform(platform, where) if platform else None,
        strings(document, "annotations", where),
        text(document, "artifactType", where),
    )  # fmt: skip


def descriptor_document(descriptor: Descriptor) -> dict[str, Any]:
    """The JSON form of a descriptor."""
    document: dict[str, Any] = {
        "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
    }  # fmt: skip
    if descriptor.artifact_type:
        document["artifactType"] = descriptor.artifact_type
    if descriptor.platform is not None:
        document["platform"] = platform_document(descriptor.platform)
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    return document


def parse_platform(document: Mapping[str, Any], where: str) -> Platform:
    return Platform(
        text(document, "os", where), go_architecture(text(document, "architecture", where)),
        text(document, "variant", where),
    )


def platform_document(platform: Platform) -> dict[str, str]:
    document = {"architecture": platform.architecture, "os": platform.os}
    return document | ({"variant": platform.variant} if platform.variant else {})


def parse_manifest(document: Mapping[str, Any], where: str) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """(config, layers) of an image manifest.

    Raises:
        ImageError: it is not one.
    """
    if document.get("schemaVersion") != 2:
        raise ImageError(f"{where}: not a manifest of schema version 2")
    config = parse_descriptor(mapping(document, "config", where), f"{where}: config")
    listed = objects(document, "layers", where)
    if len(listed) > MAX_LAYERS:
        raise ImageError(f"{where}: {len(listed)} layers are more than the limit of {MAX_LAYERS}")
    return config, tuple(parse_descriptor(d, f"{where}: layer {n}") for n, d in enumerate(listed))


def parse_config(document: Mapping[str, Any], where: str) -> ImageConfig:
    """The configuration of an image.

    Raises:
        ImageError: a field has the wrong type.
    """
    config = mapping(document, "config", where)
    diff_ids = texts(mapping(document, "rootfs", where), "diff_ids", where)
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise ImageError(f"{where}: '{diff_id[:100]}' in diff_ids is not a sha256 digest")
    return ImageConfig(
        architecture=go_architecture(text(document, "architecture", where)),
        os=text(document, "os", where),
        entrypoint=texts(config, "Entrypoint", where),
        cmd=texts(config, "Cmd", where),
        env=texts(config, "Env", where),
        working_dir=text(config, "WorkingDir", where),
        user=str(config.get("User") or ""),
        labels=strings(config, "Labels", where),
        diff_ids=diff_ids,
        healthcheck=_healthcheck(config.get("Healthcheck")),
    )


def _healthcheck(found: Any) -> ImageHealthcheck | None:
    """Docker's extension of the configuration. None when there is none, or none that an engine would heed."""
    if not isinstance(found, dict):
        return None
    test = found.get("Test")
    if not isinstance(test, list) or not all(isinstance(word, str) for word in test) or not test:
        return None
    numbers = {
        ours: value
        for ours, theirs in (("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod"),
                             ("retries", "Retries"))
        if isinstance(value := found.get(theirs), int) and not isinstance(value, bool) and 0 < value <= MAX_HEALTH
    }  # fmt: skip
    return ImageHealthcheck(tuple(test), **numbers)
