"""Image names: the grammar, the expansion, and the words for what is wrong."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.errors import InputError
from linuxkit.oci.reference import expand, is_digest, parse_reference

pytestmark = pytest.mark.unit
D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(("text", "want"), [
    ("nginx", "docker.io/library/nginx"),
    ("nginx:1.27", "docker.io/library/nginx:1.27"),
    ("test/app:1", "docker.io/test/app:1"),
    (f"test/multi@{D}", f"docker.io/test/multi@{D}"),
    ("localhost/app", "localhost/app"),
    ("localhost:5000/app", "localhost:5000/app"),
    ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1"),
    ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
    ("[::1]:5000/a", "[::1]:5000/a"),
])  # fmt: skip
def test_short_names_expand_as_linuxkit_does_it(text: str, want: str) -> None:
    assert expand(text) == want
    assert parse_reference(text).text == want


@pytest.mark.parametrize(("text", "registry", "repository", "tag", "digest"), [
    ("nginx", "docker.io", "library/nginx", "", ""),
    ("nginx:1.27", "docker.io", "library/nginx", "1.27", ""),
    ("docker.io/nginx:1", "docker.io", "library/nginx", "1", ""),
    ("a/b/c:1", "docker.io", "a/b/c", "1", ""),
    (f"ghcr.io/a/b:v1@{D}", "ghcr.io", "a/b", "v1", D),
    ("localhost:5000/test/app:port", "localhost:5000", "test/app", "port", ""),
    ("[fd00::1]:5000/x/y", "[fd00::1]:5000", "x/y", "", ""),
    ("[::1]/x/y:1", "[::1]", "x/y", "1", ""),
    ("Registry.Example/a/b", "registry.example", "a/b", "", ""),
    ("a--b/c__d.e_f:X_y.Z-1", "docker.io", "a--b/c__d.e_f", "X_y.Z-1", ""),
])  # fmt: skip
def test_parts(text: str, registry: str, repository: str, tag: str, digest: str) -> None:
    ref = parse_reference(text)
    assert (ref.registry, ref.repository, ref.tag, ref.digest) == (registry, repository, tag, digest)
    assert ref.name == f"{registry}/{repository}"


def test_a_name_without_a_tag_means_latest() -> None:
    assert parse_reference("busybox").tagged == "docker.io/library/busybox:latest"
    assert parse_reference("busybox:1").tagged == "docker.io/library/busybox:1"
    assert parse_reference(f"busybox@{D}").tagged == f"docker.io/library/busybox@{D}"


@pytest.mark.parametrize(("text", "words"), [
    ("", "empty"),
    ("Bad Ref:::", "white space"),
    ("https://ghcr.io/a/b", "URL scheme"),
    ("Foo/bar", "upper-case"),
    ("ghcr.io/a/B", "upper-case"),
    ("nginx:", "tag is empty"),
    ("nginx:a b", "white space"),
    ("nginx:-x", "not a tag"),
    ("nginx:" + "a" * 129, "not a tag"),
    ("nginx@sha256:abc", "not a digest"),
    ("nginx@sha512:" + "a" * 128, "not a digest"),
    ("nginx@sha256:" + "AB" * 32, "not a digest"),
    ("ghcr.io//b", "empty part"),
    ("ghcr.io/a/", "empty part"),
    ("a/-b", "separator"),
    ("a/b..c", "separator"),
    ("a/b$c", "'$'"),
    ("a/../../etc/passwd", "separator"),
    ("ghcr.io:99999/a/b", "not a registry"),
    ("ghcr.io:0/a/b", "not a registry"),
    ("a/" + "b" * 300, "longer than 255"),
    ("x" * 2000, "2000 characters"),
    ("nginx:1\n", "white space"),
    ("nginx:\u0661", "not a tag"),
    ("é/b", "contains"),
])  # fmt: skip
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_reference(text)
    assert words in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("text", "at"), [
    ("ghcr.io/a/Bad:1", 11), ("Foo/bar", 1), ("a b", 2), ("nginx:", 7), ("nginx:1.2$3", 10), ("nginx@sha256:abc", 7),
    ("aB", 2), ("x/y$z", 4), ("ghcr.io/a//b", 11), ("a/b..c", 4), ("ghcr.io:0/a/b", 1), ("https://x/y", 1),
    ("library/-x:1", 9), ("nginx:-x", 7), ("docker.io/nginx/", 17),
])  # fmt: skip
def test_where_it_is_wrong_is_said(text: str, at: int) -> None:
    with pytest.raises(InputError, match=f"at character {at}:"):
        parse_reference(text)


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    with pytest.raises(InputError) as caught:
        parse_reference("a/b\x1b[2Jc")
    assert "\x1b" not in caught.value.message


_WORD = st.text("az09", min_size=1, max_size=4)
_PART = st.tuples(_WORD, st.sampled_from(["", "_x", "__x", "-x", "---x"]), _WORD).map("".join)
_TAG = st.text("aZ9_", min_size=1, max_size=3) | st.sampled_from(["a.b", "v1.0-rc.1", "_", "a" * 128])


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(_PART, min_size=1, max_size=4), st.none() | _TAG, st.booleans())
def test_every_good_name_parses_and_expanding_is_stable(parts: list[str], tag: str | None, pinned: bool) -> None:
    text = "/".join(parts) + (f":{tag}" if tag else "") + (f"@{D}" if pinned else "")
    ref = parse_reference(text)
    assert parse_reference(ref.text) == ref
    assert expand(ref.text) == ref.text or ref.text.count("/") == 1
    assert ref.tag == (tag or "")


@settings(deadline=None, derandomize=True, database=None)
@given(st.text(alphabet=string.printable + "é\0\u2028", max_size=40))
def test_any_text_parses_or_is_refused_politely(text: str) -> None:
    try:
        ref = parse_reference(text)
    except InputError:
        return
    assert ".." not in ref.repository.split("/")
    assert not ref.repository.startswith("/")


@pytest.mark.parametrize("text", ["sha256:../../../etc/passwd", "sha256:" + "a" * 63, f"{D}\n", "md5:x"])
def test_only_a_digest_is_a_file_name(text: str) -> None:
    assert not is_digest(text)
    assert is_digest(D)
