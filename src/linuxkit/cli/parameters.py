"""Which options of `linuxkit build` decide the bytes: for the provenance, and for the shortcut of a repeated build."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The options that decide the bytes of what is built, and what the provenance calls them. The shortcut heeds them all.
DECIDE = {
    "name": "name", "output": "output", "formats": "formats", "arch": "architecture", "compress": "compress",
    "initrd_archives": "initrdArchives", "level": "level", "decompress_kernel": "decompressKernel", "no_sbom": "noSbom",
    "sbom_output": "sbom", "sbom_format": "sbomFormat", "sbom_current_time": "sbomCreated",
    "provenance_output": "provenance", "whiteouts": "whiteouts", "size": "size", "qcow2_compress": "qcow2Compress",
    "mem": "memory", "disk_root": "root", "data_partition": "dataPartition", "verity": "verity",
    "sign_cert": "secureBootCertificate",
}  # fmt: skip
#: Those that don't, and why.
DO_NOT_DECIDE = {
    "files": "inputs, by digest", "directory": "where the outputs go", "provenance_file": "a file of its own",
    "builder_id": "the builder's id in the statement", "show_plan": "builds nothing", "dry_run": "builds nothing",
    "pull": "images are inputs, by digest", "offline": "images are inputs, by digest",
    "lock_file": "an input, by digest", "no_lock": "images are inputs, by digest",
    "bundle_file": "images are inputs, by digest", "debian_mirror": "packages are inputs, by digest",
    "input_tar": "changes nothing", "docker": "changes nothing", "no_preflight": "whether it is built, not what",
    "sign_key": "its certificate stands for it", "allow_local_files": "files are inputs, by digest",
    "max_layer": "whether it is built, not what",
    "allow_release_rollback": "packages are inputs, by digest",
}


def installed() -> dict[str, str]:
    """The versions of the wheels that compress and compile, for the shortcut: they are told without importing any."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("zlib-ng", "zstandard", "lz4", "ziglang"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found | {"python": sys.version}  # whose liblzma makes xz


def parameters(asked_for: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What the provenance says of the command line: each option of DECIDE that was given, or has a value by now.

    Args:
        asked_for: options by name, as the command line has them.
        known: the values that came of some of them.
    """
    given = {option: asked_for[option] for option in DECIDE} | dict(known)
    given["formats"] = list(given["formats"]) or ["tar" if given["output"] else "kernel+initrd"]
    given["output"] = bool(given["output"] and not asked_for["formats"])  # its name is the user's
    if given["no_sbom"]:
        given |= {"sbom_output": "", "sbom_format": "", "sbom_current_time": ""}
    if given["sign_cert"] is not None:
        from linuxkit.oci.files import host_errors

        with host_errors("cannot read", Path(given["sign_cert"])):
            data = Path(given["sign_cert"]).read_bytes()
        given["sign_cert"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
    # a level of 0 is one: False is left out by what it is, not by what it equals
    return {name: given[option] for option, name in DECIDE.items()
            if given[option] is not None and given[option] is not False and given[option] not in ("", ())}  # fmt: skip
