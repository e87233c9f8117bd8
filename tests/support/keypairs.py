"""Pairs of keys that openssl makes, so that our own code is not its own judge."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from linuxkit.trust import keys
from linuxkit.trust.keys import PrivateKey


def openssl(*args: str | Path, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, args)], input=data, capture_output=True, check=True).stdout


@dataclass
class Pair:
    """A pair of keys that openssl made."""

    private: Path
    public: Path

    @property
    def key(self) -> PrivateKey:
        return keys.private_key(self.private.read_bytes(), self.private.name, lambda: b"")


def make_pair(folder: Path, name: str, *options: str) -> Pair:
    pair = Pair(folder / f"{name}.key", folder / f"{name}.pub")
    openssl("genpkey", *(options or ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")), "-out", pair.private)
    openssl("pkey", "-in", pair.private, "-pubout", "-out", pair.public)
    return pair
