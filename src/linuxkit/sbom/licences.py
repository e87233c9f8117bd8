"""What package databases call a licence → an SPDX licence expression (SPDX 2.3, annex D). Pure.

What is no identifier of the SPDX list becomes a LicenseRef, whose text is what the database says. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache, lru_cache
from typing import NamedTuple

from linuxkit.sbom.licence_ids import EXCEPTIONS, LICENCES

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
_MAX_TOKENS = 200
_GNU = re.compile(r"(A?GPL|LGPL|GFDL)-(\d)(\.\d)?(\+|-only|-or-later)?", re.I)
#: Debian's short names that are not those of the SPDX list.
_DEBIAN = {"expat": "MIT", "zlib/libpng": "Zlib", "cc0": "CC0-1.0"}


class Licence(NamedTuple):
    """An expression ("" when nothing is known), and the texts of the LicenseRefs in it."""

    expression: str = ""
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """The expression when it is one identifier of the SPDX list."""
        return self.expression if self.expression in _known().values() else ""


@cache
def _known() -> dict[str, str]:
    return {name.lower(): name for name in LICENCES.split()}


@cache
def _exceptions() -> dict[str, str]:
    return {name.lower(): name for name in EXCEPTIONS.split()}


@lru_cache(4096)
def licence(text: str) -> Licence:
    """The expression for what a database says; several lines are several licences that all hold."""
    parts = [found for line in text.split("\n") if (found := _line(" ".join(line.split()))).expression]
    if len(parts) < 2:
        return parts[0] if parts else Licence()
    texts = {name: said for part in parts for name, said in part.texts}
    each: list[str] = []
    for part in parts:
        if "(" in part.expression or " OR " in part.expression:
            each.append(f"({part.expression})" if " OR " in part.expression else part.expression)
        else:
            each += part.expression.split(" AND ")
    return Licence(" AND ".join(dict.fromkeys(each)), tuple(texts.items()))


def _line(text: str) -> Licence:
    if not text or text.lower() in ("none", "noassertion", "unknown", "custom"):
        return Licence()
    return _expression(text) or _named(text)


def _expression(text: str) -> Licence | None:
    """Licences joined by AND, OR and WITH; None when it is not that."""
    tokens = _TOKEN.findall(text)[: _MAX_TOKENS + 1]
    if len(tokens) > _MAX_TOKENS:
        return None
    out: list[str] = []
    texts: dict[str, str] = {}
    depth, operand = 0, True  # operand: a licence is to come, not an operator
    n = 0
    while n < len(tokens):
        token = tokens[n]
        word = token.upper()
        if token == "(" and operand:
            depth += 1
        elif token == ")" and not operand and depth:
            depth -= 1
        elif word in ("AND", "OR") and not operand:
            token, operand = word, True
        elif operand and token not in "()" and word not in ("AND", "OR", "WITH"):
            known = _identifier(token)
            operand = False
            if n + 2 < len(tokens) and tokens[n + 1].upper() == "WITH":
                exception = _exceptions().get(tokens[n + 2].lower())
                if known and exception:
                    token = f"{known} WITH {exception}"
                else:
                    token = _reference(f"{token} WITH {tokens[n + 2]}", texts)
                n += 2
            else:
                token = known or _reference(token, texts)
        else:
            return None
        out.append(token)
        n += 1
    if operand or depth:
        return None
    joined = " ".join(out).replace("( ", "(").replace(" )", ")")
    return Licence(joined, tuple(texts.items()))


def _identifier(token: str) -> str:
    """The spelling of the SPDX list, or ""."""
    gnu = _GNU.fullmatch(token)
    if gnu:
        form = {"+": "-or-later", None: "-only"}.get(gnu[4], (gnu[4] or "").lower())
        token = f"{gnu[1]}-{gnu[2]}{gnu[3] or '.0'}{form}"
    return _DEBIAN.get(token.lower()) or _known().get(token.lower(), "")


def _named(text: str) -> Licence:
    texts: dict[str, str] = {}
    return Licence(_reference(text, texts), tuple(texts.items()))


def _reference(text: str, texts: dict[str, str]) -> str:
    """A LicenseRef for a text: readable, and another one for every other text."""
    if text.startswith("LicenseRef-") and re.fullmatch(r"[A-Za-z0-9.-]{1,100}", text):
        name = text
    else:
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:40]
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
        name = f"LicenseRef-{plain}-{digest}" if plain != text else f"LicenseRef-{plain}"
    texts[name] = text
    return name
