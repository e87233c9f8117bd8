"""JSON as Go's encoding/json with an indent of four spaces writes it: what LinuxKit puts into images, byte for byte."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def go_json(value: Any) -> bytes:
    """`value` as UTF-8, keys in the order they stand, without a newline at the end."""
    text = json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)
    return _ESCAPED.sub(lambda m: "\\ufffd" if "\ud800" <= m[0] <= "\udfff" else f"\\u{ord(m[0]):04x}", text).encode()
