"""A YAML text as a tree of nodes that know where they stand: one document of YAML 1.2, core schema.

    bytes ──UTF-8──► events (libyaml) ──► Scalar | Sequence | Mapping

PyYAML's events are turned into nodes here rather than by its own composer and constructor, because those read YAML 1.1
(`on` becomes true, `1:30` becomes 90), keep the last of two equal keys, and recurse as deep as the text says. What a
text can make large is bounded: its size, its depth, and the number of nodes after aliases are expanded.
Plain scalars are read as yaml.v3, LinuxKit's parser, reads them: `yes` and `on` are text, `0x1F`, `0o17` and `0755`
are numbers (the last one octal), `1_000` is 1000, a date is text.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from linuxkit.config.model import Position
from linuxkit.errors import InputError, Problem

#: Largest text that is read, in bytes.
MAX_SIZE = 16 << 20
#: Deepest nesting; LinuxKit's YAML needs eight levels.
MAX_DEPTH = 64
#: Most nodes, counting what an alias stands for each time it is used.
MAX_NODES = 500_000
#: So much of a text counts as one more node: aliases of a long one multiply it.
NODE_BYTES = 64

_TAG = "tag:yaml.org,2002:"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)

Value = str | int | float | bool | None


def printable(text: str) -> str:
    """Text from a file as it may reach a terminal: no control characters, and not without end."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:400])
    return shown if len(text) <= 400 else shown + "…"


class Scalar(NamedTuple):
    """A leaf. `text` is what was written (quotes and escapes undone), `value` what it means."""

    text: str
    value: Value
    position: Position

    @property
    def kind(self) -> str:
        if self.value is None:
            return "null"
        names = {str: "a string", bool: "a boolean", int: "an integer", float: "a number"}
        return names[type(self.value)]


class Sequence(NamedTuple):
    """A list."""

    items: tuple[Node, ...]
    position: Position

    @property
    def kind(self) -> str:
        return "a list"


class Mapping(NamedTuple):
    """Keys are unique, in the order written; merge keys (`<<`) are already expanded."""

    pairs: tuple[tuple[Scalar, Node], ...]
    position: Position

    @property
    def kind(self) -> str:
        return "a mapping"


Node = Scalar | Sequence | Mapping


def read_document(data: str | bytes, file: str = "") -> Node:
    """The one document in `data`.

    Args:
        data: UTF-8 bytes, or text.
        file: its name, for messages and positions.

    Raises:
        InputError: it is not YAML, not text, too large, or says something twice; every duplicate key is listed.
    """
    text = _decode(data, file)
    import yaml

    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.feed(event)
    except yaml.MarkedYAMLError as e:
        raise _fail(*_syntax(e, text), file, e.problem_mark or e.context_mark) from None
    except yaml.YAMLError as e:
        raise InputError(f"{file or 'the text'} is not YAML: {e}") from None
    if builder.problems:
        found = sorted(builder.problems, key=lambda p: (p.line, p.column))
        raise InputError(f"{file or 'the text'} is not valid YAML", problems=found)
    if builder.root is None:
        raise InputError(
            f"{file or 'the text'} is empty", hint="write at least `services:` or `init:` with something under it",
            problems=[Problem("no YAML document found", file=file, line=1, column=1)],
        )  # fmt: skip
    return builder.root


def _decode(data: str | bytes, file: str) -> str:
    name = file or "the text"
    if len(data) > MAX_SIZE:
        raise InputError(
            f"{name} is larger than {MAX_SIZE >> 20} MiB", hint="bring large content in with `source:` of a files entry"
        )
    if isinstance(data, bytes):
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{name} is UTF-16, not UTF-8", hint="save it as UTF-8")
        try:
            text = data.removeprefix(b"\xef\xbb\xbf").decode()
        except UnicodeDecodeError as e:
            line, column = data.count(b"\n", 0, e.start) + 1, e.start - (data.rfind(b"\n", 0, e.start) + 1) + 1
            raise InputError(
                f"{name} is not UTF-8 text", hint="save it as UTF-8; is it really the YAML file?",
                problems=[Problem(f"byte 0x{data[e.start]:02x} is not UTF-8", file=file, line=line, column=column)],
            ) from None  # fmt: skip
    else:
        text = data.removeprefix("\ufeff")
    if bad := _CONTROL.search(text) or re.search("[\ud800-\udfff]", text):
        line, column = text.count("\n", 0, bad.start()) + 1, bad.start() - text.rfind("\n", 0, bad.start())
        raise InputError(
            f"{name} is not plain text", hint="YAML allows no control characters; is it really the YAML file?",
            problems=[Problem(f"control character U+{ord(bad[0]):04X}", file=file, line=line, column=column)],
        )  # fmt: skip
    return text


def _syntax(e: Any, text: str) -> tuple[str, str]:
    """(message, hint) for a parser's complaint, in our words where the cause is a common one."""
    if "nesting depth" in str(e.problem):  # libyaml's own limit, of 1000 levels
        return f"nested deeper than {MAX_DEPTH} levels", ""
    mark = e.problem_mark or e.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    problem = str(e.problem or e.context or "not YAML")
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab cannot be used for indentation", "indent with spaces"
    if "cannot start any token" in problem and line[mark.column : mark.column + 1] in ("@", "`", "%"):
        return f"a value cannot start with {line[mark.column]}", "put the value in quotes"
    if "mapping values are not allowed" in problem:
        return "a `key: value` cannot stand here", "check the indentation, and quote a value that contains ': '"
    if "did not find expected key" in problem or "did not find expected '-'" in problem:
        return (
            "this line does not fit what stands above it",
            "check the indentation: items of a list start in one column",
        )
    if "could not find expected ':'" in problem:
        return "a key without a value", "write `key: value`; check for a missing ':' or quote"
    if "unexpected end of stream" in problem:
        return "the text ends inside a quoted value", "close the quote"
    if "undefined alias" in problem:
        return problem, "an anchor (&name) has to stand before its alias (*name)"
    return problem, ""


def _fail(message: str, hint: str, file: str, mark: Any) -> InputError:
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    where = Problem(printable(message), file, line, column, hint=hint)
    return InputError(f"{file or 'the text'} is not valid YAML", problems=[where])


def scalar_value(text: str) -> Value:
    """What a plain (unquoted) scalar means."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[:1].isdigit() or text[:1] in "+-.":
        number = text.replace("_", "") if "_" in text and text[:1] != "." else text
        if len(number) <= 40:
            if _INT.fullmatch(number):
                digits = number.lstrip("+-")
                legacy = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
                return int(number, 8) if legacy else int(number, 0)
            if _FLOAT.fullmatch(number):
                return float(number.replace(".", "", 1) if number.lstrip("+-")[1:2].isalpha() else number)
    return text


class _Open:
    """A collection whose end has not been seen."""

    __slots__ = ("anchor", "items", "mapping", "position", "weight")

    def __init__(self, mapping: bool, position: Position, anchor: str | None) -> None:
        self.mapping, self.position, self.anchor = mapping, position, anchor
        self.items: list[Node] = []
        self.weight = 1


class _Builder:
    """Events in, one tree out. Iterative: the text decides nothing about our stack."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._documents = 0

    def feed(self, event: Any) -> None:
        name = type(event).__name__
        mark = event.start_mark
        if name == "ScalarEvent":
            self._done(self._scalar(event), 1 + len(event.value) // NODE_BYTES, event.anchor, mark)
        elif name == "AliasEvent":
            if event.anchor not in self._anchors:
                raise _fail(f"alias *{event.anchor} has no anchor before it", "write &name at the value it repeats",
                            self.file, mark)  # fmt: skip
            node, weight = self._anchors[event.anchor]
            self._done(node, weight, None, mark)
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            mapping = name == "MappingStartEvent"
            if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
                raise _fail(f"unknown tag {event.tag}", "remove the tag", self.file, mark)
            if len(self._stack) >= MAX_DEPTH:
                raise _fail(f"nested deeper than {MAX_DEPTH} levels", "", self.file, mark)
            self._stack.append(_Open(mapping, self._position(mark), event.anchor))
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            done = self._stack.pop()
            node = self._mapping(done) if done.mapping else Sequence(tuple(done.items), done.position)
            self._done(node, done.weight, done.anchor, mark)
        elif name == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise _fail("a second document starts here", "give each document a file of its own: build a.yml b.yml",
                            self.file, mark)  # fmt: skip

    def _position(self, mark: Any) -> Position:
        return Position(self.file, mark.line + 1, mark.column + 1)

    def _done(self, node: Node, weight: int, anchor: str | None, mark: Any) -> None:
        if anchor:
            self._anchors[anchor] = (node, weight)
        if not self._stack:
            # `# only a comment` gives no document, `---` an empty one: both say nothing
            self.root = None if isinstance(node, Scalar) and node.value is None and not node.text else node
            return
        parent = self._stack[-1]
        parent.items.append(node)
        parent.weight += weight
        if parent.weight > MAX_NODES:
            raise _fail(f"more than {MAX_NODES} values, counting aliases", "aliases multiply what they repeat",
                        self.file, mark)  # fmt: skip

    def _scalar(self, event: Any) -> Scalar:
        text, position = event.value, self._position(event.start_mark)
        tag = event.tag
        if tag is None and event.implicit[0]:
            return Scalar(text, scalar_value(text), position)
        if tag in (None, "!", _TAG + "str"):
            return Scalar(text, text, position)
        wanted = {"int": int, "bool": bool, "float": float, "null": type(None)}.get(tag.removeprefix(_TAG))
        value = scalar_value(text)
        if wanted is float and type(value) is int:
            value = float(value)
        if wanted is None or type(value) is not wanted:
            raise _fail(f"{text!r} with the tag {tag.replace(_TAG, '!!')} is not supported", "remove the tag",
                        self.file, event.start_mark)  # fmt: skip
        return Scalar(text, value, position)

    def _mapping(self, done: _Open) -> Mapping:
        pairs: dict[str, tuple[Scalar, Node]] = {}
        merged: dict[str, tuple[Scalar, Node]] = {}
        for key, value in zip(done.items[::2], done.items[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._problem("a key has to be a single word, not " + key.kind, key.position)
            elif key.text == "<<" and key.value == "<<":
                for source in value.items if isinstance(value, Sequence) else (value,):
                    if isinstance(source, Mapping):
                        for inner in source.pairs:
                            merged.setdefault(inner[0].text, inner)
                    else:
                        self._problem("<< needs a mapping to merge", key.position)
            elif (first := pairs.get(key.text)) is not None:
                at = first[0].position
                self._problem(f"the key {key.text!r} is given twice", key.position,
                              f"first on line {at.line}, column {at.column}; keep one")  # fmt: skip
            else:
                pairs[key.text] = (key, value)
        return Mapping((*pairs.values(), *(p for text, p in merged.items() if text not in pairs)), done.position)

    def _problem(self, message: str, at: Position, hint: str = "") -> None:
        self.problems.append(Problem(printable(message), at.file, at.line, at.column, hint=hint))
