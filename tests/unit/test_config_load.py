"""Files, standard input and addresses to one Config; and how several become one."""

from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.config import load
from linuxkit.config.load import Readers, load_documents
from linuxkit.config.merge import merge
from linuxkit.config.model import Kernel
from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError, NetworkError

pytestmark = pytest.mark.unit


def test_files_stdin_and_addresses_are_merged_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("init: [a]\n")
    readers = Readers(stdin=lambda most: b"init: [b]\n"[:most], fetch=lambda url, most: f"init: ['{url}']".encode())
    config = load_documents([str(tmp_path / "a.yml"), "-", "https://example.org/c.yml"], readers)
    assert [i.image for i in config.init] == ["a", "b", "https://example.org/c.yml"]
    assert [i.position.file for i in config.init] == [str(tmp_path / "a.yml"), "<stdin>", "https://example.org/c.yml"]


def test_pkg_is_relative_to_the_file_and_only_for_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.yml").write_text("init: ['@pkg:../x']\n")
    readers = Readers(stdin=lambda _: b"init: ['@pkg:y']\n", package=lambda folder: f"p/{folder.relative_to(tmp_path)}")
    assert load_documents([str(tmp_path / "sub/a.yml")], readers).init[0].image == "p/sub/../x"
    with pytest.raises(InputError) as caught:
        load_documents([str(tmp_path / "sub/a.yml"), "-"], readers)
    assert "only in files on this machine" in str(caught.value.problems[0])


def test_faults_of_all_files_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("bogus: 1\n")
    (tmp_path / "b.yml").write_text("init: x\n")
    with pytest.raises(InputError) as caught:
        load_documents([str(tmp_path / name) for name in ("a.yml", "gone.yml", "b.yml")])
    files = [Path(p.file).name for p in caught.value.problems]
    assert files == ["a.yml", "gone.yml", "b.yml"]


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.yml").write_text("{}")
    with pytest.raises(InputError, match="no such file") as caught:
        load_documents([str(tmp_path / "wbe.yml")])
    assert caught.value.hint == f"did you mean '{tmp_path / 'web.yml'}'?"
    with pytest.raises(InputError, match="no such file") as caught:
        load_documents([str(tmp_path / "other.yml")])
    assert caught.value.hint == ""
    with pytest.raises(InputError, match="no such file") as caught:
        load_documents([str(tmp_path / "gone" / "a.yml")])
    assert "no directory" in caught.value.hint
    with pytest.raises(InputError, match="is a directory") as caught:
        load_documents([str(tmp_path)])
    assert "web.yml" in caught.value.hint
    for bad in ("x\0y", "a" * 5000):
        with pytest.raises(InputError, match="cannot be read"):
            load_documents([bad])
    for source in ("-", "http://example.org/a.yml"):
        with pytest.raises(InputError, match="here"):
            load_documents([source])
    with pytest.raises(InputError, match="no YAML file"):
        load_documents([])

    def refuse(url: str, most: int) -> bytes:
        raise NetworkError(f"{url}: 404")

    with pytest.raises(NetworkError, match="404"):
        load_documents(["http://example.org/a.yml"], Readers(fetch=refuse))
    monkeypatch.setattr(load, "MAX_SIZE", 10)
    monkeypatch.setattr("linuxkit.config.document.MAX_SIZE", 10)
    (tmp_path / "big.yml").write_text("# " + "x" * 100)
    with pytest.raises(InputError, match="larger"):
        load_documents([str(tmp_path / "big.yml")])


def merged(*texts: str) -> Kernel:
    return merge([parse_config(text) for text in texts]).kernel


def test_a_later_kernel_key_wins() -> None:
    base = "kernel: {image: a, cmdline: one, binary: b, tar: t, ucode: u}"
    assert merged(base, "kernel: {cmdline: two}") == Kernel("a", "two", "b", "t", "u")
    assert merged(base, "kernel: {tar: '', ucode: ''}") == Kernel("a", "one", "b", "", "")
    assert merged(base, "kernel: {image: '', cmdline: ''}") == Kernel("a", "one", "b", "t", "u")
    assert merged(base, "init: []") == Kernel("a", "one", "b", "t", "u")
    assert merged("init: []", base) == Kernel("a", "one", "b", "t", "u")
    assert merged(base, "kernel: {binary: ''}") == Kernel("a", "one", "b", "t", "u")
    three = merged("kernel: {tar: none}", "kernel: {cmdline: x}", "kernel: {image: i}")
    assert three == Kernel("i", "x", tar="none")
    assert three.keys == {"tar", "cmdline", "image"}


def test_lists_are_joined() -> None:
    config = merge([
        parse_config("onboot: [{name: a, image: i}]\nfiles: [{path: x, contents: a}]\nvolumes: [{name: v}]", "1"),
        parse_config("onboot: [{name: a, image: j}]\nfiles: [{path: x, contents: b}]\nvolumes: [{name: w}]", "2"),
    ])  # fmt: skip
    assert [c.image for c in config.onboot] == ["i", "j"]
    assert [f.contents for f in config.files] == ["a", "b"]
    assert [v.name for v in config.volumes] == ["v", "w"]


def test_one_name_in_two_files() -> None:
    configs = [parse_config(f"services: [{{name: s, image: i}}]\nvolumes: [{{name: v}}]{end}", name)
               for name, end in (("1.yml", ""), ("2.yml", "\n"))]  # fmt: skip
    with pytest.raises(InputError) as caught:
        merge(configs)
    assert [str(p) for p in caught.value.problems] == [
        "2.yml:1:19: duplicate service name 's' (first in 1.yml, line 1)",
        "2.yml:2:11: duplicate volume name 'v' (first in 1.yml, line 2)",
    ]
