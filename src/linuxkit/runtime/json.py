"""JSON as LinuxKit writes it into images, byte for byte: that of Go's encoding/json with an indent of four spaces."""

from __future__ import annotations

from linuxkit.config.emit import go_json

__all__ = ["go_json"]
