"""The image's label, and how the YAML's settings lie over it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linuxkit.config.model import ImageSettings, Runtime
from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError
from linuxkit.runtime.label import LABEL, merge_settings, settings_from_label

pytestmark = pytest.mark.unit


def yaml(keys: str) -> ImageSettings:
    return parse_config(f"services: [{{name: a, image: i, {keys}}}]").services[0].settings


def label(value: Any) -> ImageSettings:
    return settings_from_label({LABEL: value if isinstance(value, str) else json.dumps(value)}, "img")


def test_json_and_yaml_labels_are_the_same() -> None:
    value = {"capabilities": ["CAP_CHOWN"], "runtime": {"mkdir": ["/x"]}}
    assert (
        label(value)
        == label("capabilities:\n  - CAP_CHOWN\nruntime: {mkdir: [/x]}\n")
        == label(json.dumps(value, indent=3))
    )
    assert label(value).runtime == Runtime(mkdir=("/x",))


def test_no_label() -> None:
    assert settings_from_label({}, "img") == settings_from_label({"other": "x", LABEL: " "}, "img") == ImageSettings()


@pytest.mark.parametrize(("value", "words"), [
    ({"capabilites": []}, "did you mean 'capabilities'?"),
    ({"name": "x"}, "unknown key 'name'"),
    ({"image": "x"}, "unknown key 'image'"),
    ({"restart": "always"}, "unknown key 'restart'"),
    ({"readonly": "yes"}, "needs a boolean"),
    ([], "needs a mapping"),
    ("{", "label"),
    ("x: [", "label"),
])  # fmt: skip
def test_a_bad_label_names_the_image(value: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        label(value)
    assert "image img: the label org.mobyproject.config" in caught.value.message
    assert caught.value.problems
    assert words in "\n".join(map(str, caught.value.problems))


def test_a_present_key_wins_even_when_it_is_empty() -> None:
    below = label({"binds": ["/a:/a"], "readonly": True, "uid": 5, "sysctl": {"a": "1"}, "env": ["A=1"], "cwd": "/l"})
    assert merge_settings(yaml("binds: [], readonly: false, uid: 0, sysctl: {}, env: [B=2]"), below) == ImageSettings(
        binds=(), readonly=False, uid=0, sysctl={}, env=("B=2",), cwd="/l", runtime=Runtime()
    )
    assert merge_settings(ImageSettings(), below).binds == ("/a:/a",)


@pytest.mark.parametrize("key", ["cwd", "net", "pid", "ipc", "uts", "userns", "hostname"])
def test_an_empty_text_counts_as_absent(key: str) -> None:
    assert getattr(merge_settings(yaml(f"{key}: ''"), label({key: "x"})), key) == "x"


@pytest.mark.parametrize(("key", "a", "b", "c"), [
    ("capabilities", "CAP_CHOWN", "CAP_KILL", "CAP_BPF"), ("binds", "/a:/a", "/b:/b", "/c:/c"),
])  # fmt: skip
def test_add(key: str, a: str, b: str, c: str) -> None:
    below = label({key: [a, b]})
    added = merge_settings(yaml(f"{key}.add: ['{b}', '{c}', '{c}']"), below)
    assert getattr(added, key) == (a, b, c)
    assert getattr(added, f"{key}_add") is None
    assert getattr(merge_settings(yaml(f"{key}.add: ['{c}']"), ImageSettings()), key) == (c,)
    assert getattr(merge_settings(yaml(f"{key}: ['{a}'], {key}.add: ['{c}']"), below), key) == (a,)
    assert getattr(merge_settings(ImageSettings(), label({key: [a], f"{key}.add": [b]})), key) == (a,)


def test_runtime_is_merged_key_by_key() -> None:
    below = label(
        {"runtime": {"mkdir": ["/l"], "cgroups": ["l"], "bindNS": {"net": "/n", "pid": "/p"}, "namespace": "l"}}
    )
    found = merge_settings(yaml("runtime: {mkdir: [], bindNS: {net: /y}, namespace: ''}"), below).runtime
    assert found == Runtime(mkdir=(), cgroups=("l",), bind_ns={"net": "/y", "pid": "/p"}, namespace="")
    assert merge_settings(ImageSettings(), below).runtime == below.runtime
    assert merge_settings(ImageSettings(), ImageSettings()).runtime == Runtime()
