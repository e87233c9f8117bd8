"""Which Debian mirror this machine uses: read from apt's own configuration (sources.list(5)), never written down here.

Both formats: one line (`deb [options] URI suite component…`) and deb822 (`*.sources`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import HostError, InputError

_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Mirror:
    """Base URLs of the archive and of its security archive, without a final slash."""

    main: str
    security: str

    def suites(self, suite: str) -> tuple[tuple[str, str], ...]:
        """(base URL, suite name) of everything that makes up a release, as a machine that follows it has them."""
        return (self.main, suite), (self.main, f"{suite}-updates"), (self.security, f"{suite}-security")


def parse(text: str) -> Mirror:
    """A mirror as a user gives it: `URL`, whose security archive is `URL-security`, or `URL,SECURITY-URL`.

    Raises:
        InputError: not a URL.
    """
    main, comma, security = (part.strip().rstrip("/") for part in text.partition(","))
    security = security if comma else f"{main}-security"
    for url in (main, security):
        if not re.match(r"^(https?|file|copy|mirror|mirror\+file)://?[^\s\[\]]+$", url):
            raise InputError(f"{url!r} is not the URL of a Debian mirror", hint="give --debian-mirror http://HOST/debian")
    return Mirror(main, security)


def of_host(root: Path = Path("/etc/apt")) -> Mirror:
    """The mirror that this machine's apt uses.

    Raises:
        HostError: there is no apt configuration, or none of Debian in it.
    """
    main: dict[str, int] = {}
    security: dict[str, int] = {}
    for uri, suite in _entries(root):
        base = uri.rstrip("/")
        if re.search(r"(-security|/updates)$", suite):
            security[base] = 1
        elif re.search(r"-(updates|proposed-updates)$", suite):
            main[base] = 2  # only a distribution's own archive has such a suite: the surest sign
        elif base.endswith("/debian") and "-" not in suite:
            main[base] = max(1, main.get(base, 0))
    security = {base: 1 for base in security if "ubuntu" not in base}
    main = {base: rank for base, rank in main.items() if "ubuntu" not in base}
    if not main:
        raise HostError(
            "this machine's apt sources name no Debian mirror",
            hint="give one: --debian-mirror http://HOST/debian, or LINUXKIT_DEBIAN_MIRROR",
        )
    best = max(main, key=lambda base: main[base])
    return Mirror(best, next(iter(security), f"{best}-security"))


def _entries(root: Path) -> Iterator[tuple[str, str]]:
    """(URI, suite) of every binary source with the component main, in apt's order."""
    folder = root / "sources.list.d"
    files = [root / "sources.list", *(sorted(folder.iterdir()) if folder.is_dir() else ())]
    for path in files:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".list":
            for line in text.splitlines():
                match = _LINE.match(line)
                if match and "main" in match[3].split():
                    yield match[1], match[2]
            continue
        for stanza in re.split(r"\n\s*\n", text):
            field = _stanza(stanza)
            off = field.get("enabled", "yes").lower() in ("no", "false", "0")
            if off or "deb" not in field.get("types", "").split():
                continue
            if "main" in field.get("components", "").split():
                for uri in field.get("uris", "").split():
                    for suite in field.get("suites", "").split():
                        yield uri, suite


def _stanza(text: str) -> dict[str, str]:
    field: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            field[name] += " " + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            field[name] = value.strip()
    return field
