from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.errors import HostError, InputError
from linuxkit.packages.sources import Mirror, of_host, parse

pytestmark = pytest.mark.unit

DEB822 = """\
# written by the installer
Types: deb deb-src
URIs: http://m.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://s.example/debian-security
Suites: bookworm-security
Components: main
"""
ONE_LINE = """\
# deb http://off.example/debian bookworm main
deb-src http://src.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main non-free # ours
deb http://m.example/debian bookworm-updates main
deb http://s.example/debian-security bookworm-security main
"""
OTHERS = """\
Types: deb
URIs: http://docker.example/linux/debian
Suites: bookworm
Components: stable

Types: deb
URIs: http://off.example/debian
Suites: bookworm bookworm-updates
Components: main
Enabled: no
"""
WANT = Mirror("http://m.example/debian", "http://s.example/debian-security")


def host(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        path = "sources.list" if name == "sources_list" else f"sources.list.d/{name.replace('_', '.')}"
        (tmp_path / path).write_text(text)
    return tmp_path


def test_the_mirror_from_deb822_sources(tmp_path: Path) -> None:
    assert of_host(host(tmp_path, debian_sources=DEB822, a_sources=OTHERS, b_save="deb http://x/debian a main")) == WANT


def test_the_mirror_from_one_line_sources(tmp_path: Path) -> None:
    assert of_host(host(tmp_path, sources_list=ONE_LINE)) == WANT


def test_the_archive_with_updates_is_preferred_to_one_that_only_looks_like_debian(tmp_path: Path) -> None:
    other = "deb http://third.example/debian stable main\n"
    assert of_host(host(tmp_path, a_list=other, debian_sources=DEB822)) == WANT


def test_without_a_security_archive_it_is_the_mirrors_own(tmp_path: Path) -> None:
    found = of_host(host(tmp_path, sources_list="deb https://m.example/debian trixie main\n"))
    assert found == Mirror("https://m.example/debian", "https://m.example/debian-security")


@pytest.mark.parametrize("text", ["", "deb http://a/ubuntu noble main\ndeb http://a/ubuntu noble-updates main\n"])
def test_a_machine_without_debian_is_told_what_to_do(tmp_path: Path, text: str) -> None:
    with pytest.raises(HostError) as caught:
        of_host(host(tmp_path, sources_list=text))
    assert "--debian-mirror" in caught.value.hint


def test_a_mirror_given_by_hand() -> None:
    assert parse("http://m/debian/") == Mirror("http://m/debian", "http://m/debian-security")
    assert parse("http://m/d, http://s/sec/") == Mirror("http://m/d", "http://s/sec")


@pytest.mark.parametrize("text", ["m.example/debian", "ftp://m/debian", "http://m/debian,x", "http://m/a b", "http://m/[x]"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the URL of a Debian mirror"):
        parse(text)


def test_the_suites_of_a_release() -> None:
    assert Mirror("http://m", "http://s").suites("trixie") == (
        ("http://m", "trixie"), ("http://m", "trixie-updates"), ("http://s", "trixie-security"),
    )  # fmt: skip
