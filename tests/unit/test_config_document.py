"""YAML texts to nodes: what words mean, where they stand, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.config import document
from linuxkit.config.document import Mapping, Scalar, Sequence, read_document, scalar_value
from linuxkit.errors import InputError
from support.config_values import REPEATABLE

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("text", "value"), [
    ("yes", "yes"), ("on", "on"), ("no", "no"), ("off", "off"), ("true", True), ("False", False), ("tRUE", "tRUE"),
    ("~", None), ("", None), ("Null", None), ("nULL", "nULL"),
    ("1", 1), ("-7", -7), ("+3", 3), ("0x1F", 31), ("0o17", 15), ("0755", 493), ("-010", -8), ("0b101", 5), ("0", 0),
    ("1_000", 1000), ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("08", 8.0), (".inf", float("inf")),
    ("-.INF", float("-inf")), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"), ("1.2.3", "1.2.3"), ("0x", "0x"),
    ("_1", "_1"), ("-", "-"), (".", "."), ("1" * 41, "1" * 41),
])  # fmt: skip
def test_what_a_plain_word_means(text: str, value: Any) -> None:
    found = scalar_value(text)
    assert found == value
    assert type(found) is type(value)


def test_quotes_and_tags_make_text() -> None:
    root = read_document("[\"1\", 'true', !!str 5, ! 6, !!int '7', |\n  8\n]".replace("|\n  8\n", "x"))
    assert isinstance(root, Sequence)
    assert [n.value for n in root.items if isinstance(n, Scalar)] == ["1", "true", "5", "6", 7, "x"]


def test_every_node_knows_its_place() -> None:
    root = read_document("a:\n  - é: [x,\n     y]\n", "f.yml")
    assert isinstance(root, Mapping)
    ((_, items),) = root.pairs
    assert isinstance(items, Sequence)
    inner = items.items[0]
    assert isinstance(inner, Mapping)
    key, values = inner.pairs[0]
    assert isinstance(values, Sequence)
    places = [(n.position.line, n.position.column) for n in (key, values, *values.items)]
    assert places == [(2, 5), (2, 8), (2, 9), (3, 6)]
    assert key.position.file == "f.yml"


def test_aliases_and_merge_keys() -> None:
    root = read_document("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3, z: 4}\nagain: *b\ntwo: {<<: [*b, {q: 5}]}\n")
    assert isinstance(root, Mapping)
    found = {k.text: {i.text: v.value for i, v in m.pairs if isinstance(v, Scalar)}
             for k, m in root.pairs if isinstance(m, Mapping)}  # fmt: skip
    assert found == {"base": {"x": 1, "y": 2}, "use": {"y": 3, "z": 4, "x": 1}, "again": {"x": 1, "y": 2},
                     "two": {"x": 1, "y": 2, "q": 5}}  # fmt: skip


def test_both_places_of_a_duplicate_key_and_all_duplicates() -> None:
    with pytest.raises(InputError) as caught:
        read_document("a: 1\nb: {c: 1, c: 2}\na: 3\n", "f.yml")
    assert [str(p) for p in caught.value.problems] == [
        "f.yml:2:11: the key 'c' is given twice (first on line 2, column 5; keep one)",
        "f.yml:3:1: the key 'a' is given twice (first on line 1, column 1; keep one)",
    ]


@pytest.mark.parametrize(("text", "place", "words"), [
    ("a:\n\t- b\n", "f:2:1", "tab"),
    ("a: b: c\n", "f:1:5", "quote"),
    ("a:\n  - x\n - y\n", "f:3:2", "indentation"),
    ("a: 'x\n", "f:2:1", "close the quote"),
    ("a: @pkg:x\n", "f:1:4", "quotes"),
    ("a: `x\n", "f:1:4", "quotes"),
    ("", "f:1:1", "no YAML document"),
    ("# nothing\n", "f:1:1", "no YAML document"),
    ("---\n", "f:1:1", "no YAML document"),
    ("a: 1\n---\nb: 2\n", "f:2:1", "second document"),
    ("a: *x\n", "f:1:4", "no anchor"),
    ("a: &a [*a]\n", "f:1:8", "no anchor"),
    ("? [x]\n: y\n", "f:1:3", "a key has to be"),
    ("a: !foo b\n", "f:1:4", "tag"),
    ("a: !!binary aGk=\n", "f:1:4", "tag"),
    ("a: !!map [x]\n", "f:1:4", "tag"),
    ("a: !!int x\n", "f:1:4", "tag"),
    ("a: {<<: 5}\n", "f:1:5", "merge"),
    ("a: \0\n", "f:1:4", "control character U+0000"),
    (b"a: x\xff\n", "f:1:5", "0xff"),
    (b"\x7fELF\x02\x01", "f:1:1", "control character"),
])  # fmt: skip
def test_what_is_refused_says_where_and_why(text: str | bytes, place: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_document(text, "f")
    (problem,) = caught.value.problems
    assert str(problem).startswith(place + ": ")
    assert words in str(problem)


def test_utf16_and_a_byte_order_mark() -> None:
    with pytest.raises(InputError, match="UTF-16"):
        read_document("a: 1".encode("utf-16"), "f")
    assert isinstance(read_document(b"\xef\xbb\xbfa: 1", "f"), Mapping)


def test_depth_is_bounded() -> None:
    deep = document.MAX_DEPTH
    read_document("[" * deep + "]" * deep)
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000, "[" * (deep + 1) + "]" * (deep + 1)):
        with pytest.raises(InputError) as caught:
            read_document(text)
        assert "nested deeper" in str(caught.value.problems[0])


def test_aliases_cannot_multiply_without_end() -> None:
    lines = ["l0: &l0 [" + ",".join("x" * 10) + "]"]
    lines += [f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InputError) as caught:
        read_document("\n".join(lines))
    assert "counting aliases" in str(caught.value.problems[0])


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_SIZE", 100)
    read_document("a" * 100)
    with pytest.raises(InputError, match="larger"):
        read_document("a" * 101)


@given(st.text() | st.binary() | st.text(alphabet="ab:-[]{}&*!|>'\"%@#?,\n\t <0~"))
@settings(REPEATABLE, max_examples=300)
def test_any_text_is_a_tree_or_an_input_error(text: str | bytes) -> None:
    try:
        assert isinstance(read_document(text, "f"), Scalar | Sequence | Mapping)
    except InputError as e:
        assert e.message
