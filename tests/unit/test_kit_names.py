"""Names of the kit's images come from nobody but its own builder; and names are compared in one spelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, InputError, ReservedNameError, TrustError
from linuxkit.locking import make_lock, pinned_image
from linuxkit.oci import kitmade
from linuxkit.oci.archive import import_archive
from linuxkit.oci.reference import KIT_REGISTRY, canonical_registry, is_kit_name, parse_reference
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import REF_NAME, Store
from linuxkit.oci.verify import inspect, repair
from linuxkit.packages.kit import Kit
from linuxkit.plan.lock import decode, encode
from linuxkit.sources import Sources
from linuxkit.trust.policy import load
from support.builds import linuxkit
from support.images import AMD64, ARM64, make_image, member, tar_of
from support.mirror import kit, mirror
from support.registry import Registry

pytestmark = pytest.mark.unit
__all__ = ["kit", "mirror"]  # fixtures
EVIL = tar_of(member("init", b"#!/evil\n"))
SPELLED = ("linuxkit.kit/init:1", "LINUXKIT.KIT/init:1", "LinuxKit.Kit/init:1", "linuxkit.kit:443/init:1",
           "linuxkit.kit:5000/init:1", "LINUXKIT.kit:00443/init:1", "linuxkit.kit/a/b:1",
           f"linuxkit.kit/init@sha256:{'a' * 64}")  # fmt: skip


@pytest.mark.parametrize("name", SPELLED)
def test_no_name_of_the_kit_is_taken(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    for take in (parse_reference, lambda n: Resolver(store).resolve(n, AMD64),
                 lambda n: store.put_image(n, AMD64, {}, ())):  # fmt: skip
        with pytest.raises(ReservedNameError, match="only images that the kit made"):
            take(name)
    assert is_kit_name(name)
    with pytest.raises(InputError):
        parse_reference("linuxkit.kit./init:1")
    assert parse_reference("docker.io/linuxkit.kit/init:1").name == "docker.io/linuxkit.kit/init"  # of Docker Hub
    assert parse_reference("x.linuxkit.kit/init:1").registry == "x.linuxkit.kit"


@pytest.mark.parametrize("write", ["put_name", "merge_name"])
def test_the_store_names_nothing_so(write: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    top = make_image(store, "docker.io/t/a:1", EVIL).index
    with pytest.raises(ReservedNameError):
        getattr(store, write)("LINUXKIT.kit:443/init:1", top if write == "put_name" else lambda listed: listed)
    assert store.names() == ["docker.io/t/a:1"]


@pytest.mark.parametrize("words", [
    ("cache", "pull", "linuxkit.kit/init:1"), ("cache", "push", "linuxkit.kit/init:1"),
    ("cache", "push", "--remote-name", "linuxkit.kit:443/init:1", "t/a:1"),
    ("cache", "import", "--name", "linuxkit.kit/init:1", "a.tar"), ("sign", "linuxkit.kit/init:1", "--key", "k"),
    ("build", "a.yml"),
])  # fmt: skip
def test_no_command_takes_it(words: tuple[str, ...], tmp_path: Path) -> None:
    make_image(Store(tmp_path / "cache"), "docker.io/t/a:1", EVIL)
    (tmp_path / "a.yml").write_text("init: [linuxkit.kit/init:1]\n")
    (tmp_path / "a.tar").touch()
    done = linuxkit(*words, cwd=tmp_path, cache=tmp_path / "cache", check=False)
    assert done.returncode == 2
    assert KIT_REGISTRY in done.stderr
    assert Store(tmp_path / "cache").names() == ["docker.io/t/a:1"]


@pytest.mark.parametrize("form", ["layout", "layout without the full name", "docker save"])
@pytest.mark.parametrize("name", SPELLED[:5])
def test_no_archive_brings_it(form: str, name: str, tmp_path: Path) -> None:
    """A control: the same archive with another name comes in."""
    import tarfile

    there = Store(tmp_path / "there")
    make_image(there, "docker.io/t/a:1", EVIL)
    linuxkit("cache", "export", "--outfile", "a.tar", *(("--format", "docker") if form == "docker save" else ()),
             "t/a:1", cwd=tmp_path, cache=there.root)  # fmt: skip
    (tmp_path / "x").mkdir()
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path / "x", filter="data")
    names = import_archive(Store(tmp_path / "control"), tmp_path / "a.tar")
    assert names == ["docker.io/t/a:1"]
    if form == "docker save":
        listed = json.loads((tmp_path / "x/manifest.json").read_text())
        listed[0]["RepoTags"] = [name]
        (tmp_path / "x/manifest.json").write_text(json.dumps(listed))
        (tmp_path / "x/index.json").unlink(missing_ok=True)
    else:
        index = json.loads((tmp_path / "x/index.json").read_text())
        keys = [REF_NAME] if form.startswith("layout w") else [REF_NAME, "io.containerd.image.name"]
        index["manifests"][0]["annotations"] = dict.fromkeys(keys, name)
        (tmp_path / "x/index.json").write_text(json.dumps(index))
    store = Store(tmp_path / "cache")
    with pytest.raises(ReservedNameError):
        import_archive(store, tmp_path / "x")
    assert store.names() == []


def named_by_another_program(store: Store, name: str, *, of: str = "docker.io/t/evil:1") -> None:
    """What LinuxKit itself, or anything that writes layouts, does to index.json."""
    path = store.root / "index.json"
    index = json.loads(path.read_text())
    (entry,) = [dict(m) for m in index["manifests"] if m["annotations"][REF_NAME] == of]
    index["manifests"] = [m for m in index["manifests"] if m["annotations"][REF_NAME] != name]
    index["manifests"].append(entry | {"annotations": {REF_NAME: name}})
    path.write_text(json.dumps(index))


def test_what_the_cache_calls_so_is_not_taken(tmp_path: Path, kit: Callable[..., Kit]) -> None:
    """The index is LinuxKit's file too. The control: with the note that only the builder writes, it would be taken."""
    store = Store(tmp_path / "cache")
    here = kit("cache")
    evil = make_image(store, "docker.io/t/evil:1", EVIL)
    name = here.reference("tool")
    named_by_another_program(store, name)
    assert here.find("tool", AMD64) is None
    (damage,) = inspect(store).damage
    assert damage.what == name
    assert evil.digest in damage.why
    own = here.resolve("tool", AMD64)
    assert own.digest != evil.digest
    assert here.find("tool", AMD64) == own
    assert inspect(store).damage == ()
    named_by_another_program(store, name)
    said: list[str] = []
    assert repair(store, inspect(store), None, said.append).damage == ()
    assert f"{name}: forgotten; the next build makes it" in said
    assert here.find("tool", AMD64) is None
    named_by_another_program(store, name)
    kitmade.add(store.root, name, str(AMD64), evil.digest, store.names())
    found = here.find("tool", AMD64)
    assert found is not None
    assert found.digest == evil.digest


@pytest.mark.parametrize("text", ["", "[", "[]", '{"linuxkit.kit/tool:1": 5}', '{"x/tool:1": {"linux/amd64": "A"}}'])
def test_a_note_that_cannot_be_read_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / kitmade.FILE).write_text(text)
    assert not any(kitmade.read(tmp_path).values())


def test_notes_of_what_is_gone_go_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n in range(3):
        make_image(store, f"linuxkit.kit/a:{n}", EVIL)
    make_image(store, "linuxkit.kit/a:2", EVIL, platform=ARM64)
    store.remove_name("linuxkit.kit/a:0")
    make_image(store, "linuxkit.kit/b:0", EVIL)
    assert {n: sorted(p) for n, p in kitmade.read(tmp_path).items()} == {
        "linuxkit.kit/a:1": ["linux/amd64"], "linuxkit.kit/a:2": ["linux/amd64", "linux/arm64"],
        "linuxkit.kit/b:0": ["linux/amd64"],
    }  # fmt: skip


# -- locks and bundles


@pytest.fixture
def bundle(tmp_path: Path, kit: Callable[..., Kit]) -> Path:
    from linuxkit import api
    from linuxkit.bundling import make_bundle

    (tmp_path / "web.yml").write_text("init: [kit://tool]\n")
    config = api.load(tmp_path / "web.yml")
    sources = with_kit(Sources(tmp_path / "cache"), kit)
    lock = make_lock(config, sources, [AMD64])
    (tmp_path / "web.lock").write_bytes(encode(lock))
    with (tmp_path / "x.tar").open("wb") as out:
        make_bundle(out, config, sources, lock, name="web", platforms=[AMD64], packages={},
                    documents=[("web.yml", (tmp_path / "web.yml").read_bytes())])  # fmt: skip
    return tmp_path / "x.tar"


def with_kit(sources: Sources, kit: Callable[..., Kit]) -> Sources:
    vars(sources)["kit"] = kit(sources.cache.name)
    return sources


def forged(bundle: Path, out: Path, *, relock: bool) -> Path:
    """The bundle with other content under the kit's name, and the labels of the genuine one."""
    import tarfile

    from linuxkit.oci import document as doc

    with tarfile.open(bundle) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    store = Store(out.parent / "forge")
    index = json.loads(files["index.json"])
    (entry,) = [m for m in index["manifests"] if m["annotations"][REF_NAME].startswith(KIT_REGISTRY)]
    blob = lambda d: json.loads(files[f"blobs/sha256/{d['digest'][7:]}"])  # noqa: E731
    (child,) = blob(entry)["manifests"]
    config = blob(blob(child)["config"])
    image = make_image(store, "docker.io/t/evil:1", EVIL, config={"config": config["config"]})
    assert image.index is not None
    entry |= {"digest": image.index.digest, "size": image.index.size}
    files["index.json"] = doc.encode(index)
    for path in (store.root / "blobs/sha256").iterdir():
        files[f"blobs/sha256/{path.name}"] = path.read_bytes()
    if relock:
        contents = json.loads(files["linuxkit/bundle.json"])
        lock = files[f"blobs/sha256/{contents['lock']['digest'][7:]}"].replace(
            child["digest"].encode(), image.digest.encode())  # fmt: skip
        blob = store.put_blob(lock, "")
        files[f"blobs/sha256/{blob.digest[7:]}"] = lock
        contents["lock"] = {"digest": blob.digest, "size": blob.size}
        files["linuxkit/bundle.json"] = doc.encode(contents)
    import io

    with tarfile.open(out, "w") as archive:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out


def test_a_bundle_with_another_image_under_the_name(bundle: Path, tmp_path: Path) -> None:
    lock = decode((tmp_path / "web.lock").read_bytes(), "web.lock")
    evil = forged(bundle, tmp_path / "evil.tar", relock=False)
    there = tmp_path / "there"
    genuine = pinned_image("kit://tool", AMD64, Sources(there, offline=True, bundle=bundle), lock)
    assert genuine.digest == lock.kit["tool"].images["linux/amd64"]
    with pytest.raises(ImageError, match=r"and web\.lock has sha256:"):
        pinned_image("kit://tool", AMD64, Sources(there, offline=True, bundle=evil), lock)
    old = json.loads(encode(lock))
    del old["kit"]["tool"]["images"]
    older = decode(json.dumps(old).encode(), "web.lock")
    with pytest.raises(ImageError, match="does not say which image kit://tool is"):
        pinned_image("kit://tool", AMD64, Sources(there, offline=True, bundle=bundle), older)
    assert Store(there).names() == []


@pytest.mark.parametrize("default", ["allow", "deny"])
def test_a_bundle_whose_own_lock_is_all_that_speaks_for_it(
    bundle: Path, tmp_path: Path, kit: Callable[..., Kit], default: str
) -> None:
    """The maker of a bundle makes its lock, too. A policy wants to hear it from somebody else."""
    from linuxkit import api
    from linuxkit.bundling import load_bundled
    from linuxkit.plan.model import Options

    evil = forged(bundle, tmp_path / "evil.tar", relock=True)
    rule = 'rules: [{images: ["kit://*"], allow: true}]\n' if default == "deny" else ""
    (tmp_path / "policy.yml").write_text(f"default: {default}\n{rule}")
    policy = load(tmp_path / "policy.yml")

    def plan(file: Path, **fields: object) -> str:
        sources = Sources(tmp_path / "there", offline=True, bundle=file, **fields)  # type: ignore[arg-type]
        assert sources.opened is not None
        own = (tmp_path / "web.lock").read_bytes() if fields.get("own_lock") else sources.opened.contents.lock
        return api.plan(load_bundled(sources.opened), sources, Options("amd64"), decode(own, "lock")).digest

    assert plan(evil) != plan(bundle)  # the control: without a policy, who takes a bundle trusts its maker
    for one in (evil, bundle):
        with pytest.raises(TrustError, match="nothing but the bundle says that it is the kit's"):
            plan(one, policy=policy)
    assert plan(bundle, policy=policy, own_lock=True)
    with pytest.raises(ImageError, match="and lock has sha256:"):
        plan(evil, policy=policy, own_lock=True)
    kit("there").resolve("tool", AMD64)  # made here, it is known here
    assert plan(bundle, policy=policy)
    with pytest.raises(TrustError):
        plan(evil, policy=policy)


def test_a_lock_pins_the_digest(bundle: Path, tmp_path: Path, kit: Callable[..., Kit]) -> None:
    text = (tmp_path / "web.lock").read_text()
    lock = decode(text.encode(), "web.lock")
    sources = with_kit(Sources(tmp_path / "cache"), kit)
    digest = pinned_image("kit://tool", AMD64, sources, lock).digest
    assert lock.kit["tool"].images == {"linux/amd64": digest}
    other = decode(text.replace(digest, f"sha256:{'0' * 64}").encode(), "web.lock")
    with pytest.raises(InputError, match=f"is {digest} here, and web.lock has sha256:0000"):
        pinned_image("kit://tool", AMD64, sources, other)


def test_images_out_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "there")
    with pytest.raises(InputError, match=r"nothing in .* has a name"):
        import_archive(store, bundle)
    assert store.names() == []


def test_no_dockerfile_takes_it(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM LINUXKIT.KIT:443/init:1\nENV A=b\n")
    (tmp_path / "build.yml").write_text("image: a\norg: t\n")
    done = linuxkit("pkg", "build", ".", cwd=tmp_path, cache=tmp_path / "cache", check=False)
    assert done.returncode == 2, done.stderr
    assert "only images that the kit made on this machine" in done.stderr


# -- one spelling


@pytest.mark.parametrize(("text", "name"), [
    ("GHCR.io/x:1", "ghcr.io/x:1"), ("ghcr.io:443/x:1", "ghcr.io/x:1"), ("ghcr.io:0443/x", "ghcr.io/x"),
    ("ghcr.io:80/x", "ghcr.io:80/x"), ("localhost:80/x", "localhost/x"), ("localhost:443/x", "localhost:443/x"),
    ("kit:1", "docker.io/library/kit:1"), ("docker.io/kit:1", "docker.io/library/kit:1"),
    ("INDEX.docker.io/kit:1", "docker.io/library/kit:1"), ("registry-1.docker.io:443/a/b", "docker.io/a/b"),
    ("a/b/c:1", "docker.io/a/b/c:1"), ("docker.io:5000/a", "docker.io:5000/a"),
    ("[::1]:5000/a", "[::1]:5000/a"), ("[0:0::0001]:80/a", "[::1]/a"), ("[FD00::1]:443/a", "[fd00::1]/a"),
    ("[::ffff:10.0.0.1]/a", "10.0.0.1/a"), ("LOCALHOST:05000/a", "localhost:5000/a"), ("127.0.0.1:80/a", "127.0.0.1/a"),
])  # fmt: skip
def test_one_canonical_form(text: str, name: str) -> None:
    found = parse_reference(text)
    assert found.text == name
    assert parse_reference(found.text) == found
    assert canonical_registry(found.registry) == found.registry


@pytest.mark.parametrize("text", ["127.1/a", "0x7f.0.0.1/a", "2130706433:80/a", "127.0.0.01/a", "Ghcr/a/b", "[1:2]/a",
                                  "[:::]/x/y:1", "ghcr.io./a"])  # fmt: skip
def test_a_host_that_means_two_things_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a registry"):
        parse_reference(text)


@pytest.mark.parametrize("pattern", ["ghcr.io/evil/*", "GHCR.IO/evil/*", "ghcr.io:443/evil/**"])
def test_policies_see_through_spelling(pattern: str, tmp_path: Path) -> None:
    from linuxkit.trust.verify import Guard

    (tmp_path / "p.yml").write_text(
        f'default: allow\nrules: [{{images: ["{pattern}", "kit"], allow: false}}]\n'
    )
    guard = Guard(load(tmp_path / "p.yml"), Store(tmp_path), lambda: None)
    for text in ("ghcr.io/evil/a:1", "GHCR.io/evil/a:1", "ghcr.io:443/evil/a", "Ghcr.IO:0443/evil/a", "kit:1",
                 "docker.io/kit", "docker.io/library/kit:1", "index.docker.io/library/kit:2"):  # fmt: skip
        with pytest.raises(TrustError, match="denies it"):
            guard.before(text)
    guard.before("ghcr.io:444/evil/a")  # another server
    guard.before("docker.io/t/kit")


def test_mirrors_and_the_cache_see_through_spelling(tmp_path: Path) -> None:
    from linuxkit.oci.session import parse_mirrors

    mirrors = parse_mirrors(["GHCR.io:443=https://m.example", "index.docker.io=https://hub.example"])
    assert mirrors == {"ghcr.io": "https://m.example", "docker.io": "https://hub.example"}
    with Registry() as registry:
        store = Store(tmp_path / "cache")
        make_image(store, "ghcr.io/t/a:1", EVIL)
        make_image(store, "docker.io/library/b:1", EVIL)
        named_by_another_program(store, "docker.io/b:2", of="docker.io/library/b:1")  # LinuxKit's spelling
        for text in ("GHCR.io:443/t/a:1", "b:1", "docker.io/b:1", "b:2"):
            assert store.find(text) is not None, text
            assert Resolver(store).resolve(text, AMD64).digest
        assert not registry.requests("manifests")


def test_one_image_of_a_lock_has_one_key() -> None:
    a, b = ({"digest": f"sha256:{c * 64}", "platforms": {}} for c in "ab")
    text = json.dumps({"version": 1, "images": {"GHCR.io:443/x:1": a, "docker.io/kit:1": b}})
    assert set(decode(text.encode(), "l").images) == {"ghcr.io/x:1", "docker.io/library/kit:1"}
    with pytest.raises(InputError, match="another spelling"):
        decode(json.dumps({"version": 1, "images": {"GHCR.io/x:1": a, "ghcr.io/x:1": b}}).encode(), "l")
