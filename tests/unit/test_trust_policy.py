"""The policy file and key files: what they mean, and every way to get them wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.errors import HostError, InputError, ReservedNameError
from linuxkit.oci.media import Descriptor, Image, ImageConfig, Platform
from linuxkit.trust import keys
from linuxkit.trust.policy import expand_pattern, glob, load, matches, parse
from linuxkit.trust.verify import in_section, subject_of

pytestmark = pytest.mark.unit
PRIVATE = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
"""  # of RFC 8410, section 10.3
PUBLIC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""  # of RFC 8410, section 10.1
DIGEST = "sha256:" + "ab" * 32


def faults(folder: Path, text: str) -> list[str]:
    (folder / "a.pub").write_text(PUBLIC)
    with pytest.raises(InputError) as caught:
        parse(text.encode(), folder / "p.yml")
    assert caught.value.exit_code == 2
    return [str(p).replace(f"{folder}/", "") for p in caught.value.problems] or [caught.value.message]


@pytest.mark.parametrize(("pattern", "names", "others"), [
    ("alpine", ["docker.io/library/alpine"], ["docker.io/library/alpine2", "docker.io/alpine"]),
    ("library/*", ["docker.io/library/alpine"], ["docker.io/linuxkit/alpine"]),
    ("docker.io/nginx", ["docker.io/library/nginx"], ["docker.io/x/nginx"]),
    ("index.docker.io/team/x", ["docker.io/team/x"], []),
    ("docker.io/**", ["docker.io/library/a", "index.docker.io/a/b"], ["docker.io.example/a"]),
    ("registry.example/*", ["registry.example/a"], ["registry.example/a/b", "registryXexample/a"]),
    ("registry.example/**", ["registry.example/a", "registry.example/a/b"], ["other.example/registry.example/a"]),
    ("localhost:5000/a*", ["localhost:5000/ab"], ["localhost:5001/ab"]),
    ("127.0.0.1:*/**", ["127.0.0.1:4711/a/b"], ["127.0.0.2:4711/a"]),
    ("[::1]:5000/a", ["[::1]:5000/a"], ["[::1]:5000/b"]),
    ("**/app", ["registry.example/team/app"], ["registry.example/team/apple"]),
    ("*", ["docker.io/library/a", "kit://init", "oci:dir"], []),
    ("kit://*", ["kit://init"], ["docker.io/kit/init"]),
    ("oci:**", ["oci:some/dir:1"], ["oci-archive:x"]),
])  # fmt: skip
def test_patterns(pattern: str, names: list[str], others: list[str]) -> None:
    full = expand_pattern(pattern)
    assert [n for n in names if not matches(full, n)] == []
    assert [n for n in others if matches(full, n)] == []


@given(st.text(alphabet="ab/*.+[", max_size=12))
def test_a_pattern_without_stars_is_itself(text: str) -> None:
    assert glob(text.replace("*", ""), text.replace("*", ""))
    assert glob(text.replace("*", "**"), text.replace("*", "/"))


def test_a_whole_policy(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a.pub").write_text(PUBLIC)
    (tmp_path / "root.json").write_text("{}")
    text = f"""\
default: allow
keys:
  release: keys/a.pub
  inline: |
{"".join("    " + line + chr(10) for line in PUBLIC.splitlines())}
rules:
  - images: [nginx, "registry.example/**"]
    keys: [release, inline, keys/a.pub]
    signed-as: ["**"]
  - images: [alpine]
    digests: ["{DIGEST}"]
  - images: ["ghcr.io/o/*"]
    keyless:
      - {{issuer: "https://i.example", identity: "a@b.example", trusted-root: root.json}}
  - images: ["kit://*"]
    allow: true
"""
    (tmp_path / "p.yml").write_text(text)
    policy = load(tmp_path / "p.yml")
    assert policy.default
    assert [k.name for k in policy.rules[0].keys] == ["release", "inline", "keys/a.pub"]
    assert len({k.identity for k in policy.rules[0].keys}) == 1
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=PUBLIC.encode(), capture_output=True,
                         check=True).stdout  # fmt: skip
    assert policy.rules[0].keys[0].identity == hashlib.sha256(der).hexdigest()[:16]
    assert policy.rules[2].keyless[0].trusted_root == tmp_path / "root.json"
    assert policy.rule("docker.io/library/alpine") is policy.rules[1]
    assert policy.rule("docker.io/library/else") is None
    assert policy.rules[1].where == f"{tmp_path}/p.yml:13"
    before = policy.fingerprint
    (tmp_path / "root.json").write_text("{ }")
    assert load(tmp_path / "p.yml").fingerprint != before


@pytest.mark.parametrize(("text", "wanted"), [
    ("rulez: []", "1:1: unknown key 'rulez' (did you mean 'rules'?)"),
    ("default: maybe", "1:10: default: 'maybe' is neither deny nor allow"),
    ("rules: {a: b}", "1:8: rules: a list with at least one item is needed"),
    ("rules:\n  - keys: [a.pub]", "2:5: rules[0]: a rule without images (for example "),
    ("rules:\n  - images: [a]", "2:5: rules[0]: a rule that asks for nothing (add keys, "),
    ("rules:\n  - images: []\n    allow: true", "2:13: rules[0].images: a list with at least one item is needed"),
    ("rules:\n  - images: [a]\n    keys: []", "3:11: rules[0].keys: a list with at least one item is needed"),
    ("rules:\n  - images: [a]\n    keys: [a.pub]\n    allow: true", "4:5: rules[0].allow: allow cannot stand"),
    ("rules:\n  - images: [a]\n    keys: [b]", "3:12: rules[0].keys[0]: no key is named 'b' (give a PEM file)"),
    ("keys: {c: a.pub}\nrules:\n  - images: [a]\n    keys: [b]", "4:12: rules[0].keys[0]: no key is named 'b' "),
    ("rules:\n  - images: [a]\n    keys: [b.pub]", "3:12: rules[0].keys[0]: b.pub: No such file or directory ("),
    ("rules:\n  - images: [a:1]\n    allow: true", "2:14: rules[0].images[0]: a pattern names repositories"),
    ("rules:\n  - images: [a]\n    digests: [x]", "3:15: rules[0].digests[0]: 'x' is not a digest (it is "),
    ("rules:\n  - images: [a]\n    allow: yes", "3:12: rules[0].allow: a string where true or false is needed"),
    ("rules:\n  - images: [a]\n    keyless: [{issuer: x}]", "3:15: rules[0].keyless[0]: identity is missing ("),
    ("rules:\n  - images: [a]\n    digests: [\"" + DIGEST + "\"]\n    signed-as: [b]", "4:5: rules[0].signed-as: "),
    ("keys: {k: p.yml.not}", "1:11: keys.k: p.yml.not: No such file or directory (names are relative to the policy"),
    ("[]", "1:1: a list where a mapping is needed"),
    ("a: [", "2:1: did not find expected node content"),
])  # fmt: skip
def test_faults_have_their_place(tmp_path: Path, text: str, wanted: str) -> None:
    (found,) = faults(tmp_path, text)
    assert found.startswith(f"p.yml:{wanted}")


def test_all_faults_at_once(tmp_path: Path) -> None:
    text = "default: 1\nrules:\n  - images: [a]\n  - keys: [a.pub]\n  - images: [a]\n    digests: [x, y]\n"
    assert len(faults(tmp_path, text)) == 5


def test_a_policy_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(InputError, match="larger than"):
        load(tmp_path / "p.yml")
    (tmp_path / "k").write_bytes(b"x" * (65 << 10))
    assert "larger than 65536 bytes" in faults(tmp_path, "keys: {k: k}")[0]


# -- the trust: section


@pytest.mark.parametrize(("text", "images", "orgs", "named"), [
    ("nginx:1", ["nginx"], [], True), ("nginx:1", ["nginx:1"], [], True), ("nginx:1", ["nginx:2"], [], False),
    ("nginx", ["docker.io/library/nginx"], [], True), ("linuxkit/init:x", [], ["linuxkit"], True),
    ("linuxkit/init:x", [], ["linux"], False), ("nginx", [], ["library"], True), ("a/b", ["a/c"], ["b"], False),
    ("registry.example/team/a", [], ["registry.example/team"], True),
    ("kit://init", ["kit://init"], ["linuxkit"], False),
    (f"nginx@{DIGEST}", [f"nginx@{DIGEST}"], [], True),
])  # fmt: skip
def test_the_trust_section(text: str, images: list[str], orgs: list[str], named: bool) -> None:
    assert in_section(subject_of(text), images, orgs) is named


def test_kit_packages_have_one_name() -> None:
    """As the YAML has them. What the store calls them is no name of an image that anybody may ask for."""
    assert subject_of("kit://init").name == "kit://init"
    with pytest.raises(ReservedNameError, match="only images that the kit made"):
        subject_of("linuxkit.kit/init:abc")


def test_the_digests_of_a_subject() -> None:
    index = Descriptor("application/vnd.oci.image.index.v1+json", DIGEST, 10)
    image = Image("a:1", "sha256:" + "cd" * 32, Platform(), ImageConfig(), (), index)
    assert subject_of("a:1", image).digests == (DIGEST, image.digest)
    assert subject_of("a:1", image, whole=True).digests == (DIGEST,)


# -- keys


def no_password() -> bytes:
    raise AssertionError("nobody should ask")


def test_the_keys_of_the_rfc() -> None:
    key = keys.private_key(PRIVATE.encode(), "k", no_password)
    assert key.public.pem() == PUBLIC.encode()
    assert key.public.verifies(key.sign(b"data"), b"data")
    assert not key.public.verifies(key.sign(b"data"), b"date")
    assert not key.public.verifies(b"", b"data")


def test_an_ecdsa_signature_is_the_same_each_time(tmp_path: Path) -> None:
    private, public = keys.generate(tmp_path / "k", b"")
    key = keys.private_key(private.read_bytes(), "k", no_password)
    assert key.sign(b"x") == key.sign(b"x")
    assert keys.public_key(public.read_bytes(), "p").identity == key.public.identity


@pytest.mark.parametrize("where", ["no/such/folder/k", "dir"])
def test_a_place_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "dir.key").mkdir()
    with pytest.raises((HostError, InputError)):
        keys.generate(tmp_path / where, b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["dir.key"]


@pytest.mark.parametrize("options", [("-algorithm", "X25519"),
                                     ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
                                     ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
                                     ("-algorithm", "ED448")], ids=["x25519", "rsa1024", "k1", "ed448"])  # fmt: skip
def test_keys_that_are_not_used(tmp_path: Path, options: tuple[str, ...]) -> None:
    subprocess.run(["openssl", "genpkey", *options, "-out", tmp_path / "k"], check=True, capture_output=True)
    public = subprocess.run(["openssl", "pkey", "-in", tmp_path / "k", "-pubout"], check=True,
                            capture_output=True).stdout  # fmt: skip
    with pytest.raises(InputError, match="this kind of key"):
        keys.public_key(public, "k")
    with pytest.raises(InputError, match="this kind of key"):
        keys.private_key((tmp_path / "k").read_bytes(), "k", no_password)


@pytest.mark.parametrize("data", [b"", b"x", PUBLIC.encode() * 2, PRIVATE.encode(), b"\x00" * (65 << 10),
                                  b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])  # fmt: skip
def test_what_is_no_public_key(data: bytes) -> None:
    with pytest.raises(InputError):
        keys.public_key(data, "k")


def cosign_key(password: bytes, **changes: object) -> bytes:
    """A private key as `cosign generate-key-pair` writes it, made from the description of the format."""
    from nacl.secret import SecretBox

    der = subprocess.run(["openssl", "pkey", "-outform", "DER"], input=PRIVATE.encode(), capture_output=True,
                         check=True).stdout  # fmt: skip
    salt, nonce = bytes(range(32)), bytes(range(24))
    secret = hashlib.scrypt(password, salt=salt, n=4096, r=8, p=1, dklen=32)
    sealed = SecretBox(secret).encrypt(der, nonce).ciphertext
    document = {
        "kdf": {"name": "scrypt", "params": {"N": 4096, "r": 8, "p": 1}, "salt": base64.b64encode(salt).decode()},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(sealed).decode(),
    } | changes
    body = base64.encodebytes(json.dumps(document).encode())
    name = b"ENCRYPTED SIGSTORE PRIVATE KEY"
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (name, body, name)


def test_keys_that_cosign_encrypted() -> None:
    for data in (cosign_key(b"geheim"), cosign_key(b"geheim").replace(b"SIGSTORE", b"COSIGN")):
        assert keys.private_key(data, "k", lambda: b"geheim").public.pem() == PUBLIC.encode()
        with pytest.raises(InputError, match="the password is wrong"):
            keys.private_key(data, "k", lambda: b"else")


@pytest.mark.parametrize("changes", [
    {"kdf": {"name": "scrypt", "params": {"N": 1 << 30, "r": 8, "p": 1}, "salt": ""}}, {"kdf": {"name": "none"}},
    {"kdf": {"name": "scrypt", "params": {"N": 3, "r": 8, "p": 1}, "salt": ""}}, {"kdf": 1}, {"ciphertext": "?"},
    {"cipher": {"name": "nacl/secretbox", "nonce": "AA=="}}, {"ciphertext": None},
], ids=["work", "kdf", "odd", "shape", "base64", "nonce", "none"])  # fmt: skip
def test_damaged_keys_of_cosign(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="k: "):
        keys.private_key(cosign_key(b"x", **changes), "k", lambda: b"x")


@pytest.mark.parametrize("password", [b"else", b""])
def test_a_wrong_password(tmp_path: Path, password: bytes) -> None:
    private, _ = keys.generate(tmp_path / "k", b"geheim")
    with pytest.raises(InputError, match="the password is wrong"):
        keys.private_key(private.read_bytes(), "k", lambda: password)
