"""Lock files: what is in them, that builds keep to them, and how they are renewed."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from linuxkit import api
from linuxkit.errors import ImageError, InputError
from linuxkit.locking import agree, make_lock, pinned_image, renew
from linuxkit.oci.media import Platform
from linuxkit.oci.resolve import ARCHIVES as RESOLVED
from linuxkit.oci.store import Store
from linuxkit.packages import toolchain
from linuxkit.packages.kit import Kit
from linuxkit.plan.asked import ARCHIVES, asked
from linuxkit.plan.lock import MAX_SIZE, Lock, LockedImage, LockedPackage, changes, decode, encode
from support.builds import YAML, files_in, linuxkit, make_cache
from support.debs import program_deb
from support.images import ARM64, make_image, member, tar_of
from support.mirror import Mirror, kit, mirror
from support.registry import Registry

pytestmark = pytest.mark.unit
__all__ = ["kit", "mirror"]  # fixtures
AMD64 = Platform("linux", "amd64")
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
LOCK = Lock(
    {"docker.io/library/nginx:1.27": LockedImage(A, {"linux/amd64": B, "linux/arm64/v8": C}),
     "oci-archive:x.tar": LockedImage(B, {"linux/amd64": B})},
    {"sshd": LockedPackage("0" * 40, {"linux/amd64": {"libc6": ("2.41-12", "a" * 64)}, "linux/arm64": {}})},
    {"https://example.com/base.yml": C},
)  # fmt: skip


def test_what_is_written_is_read_back_and_is_the_same_each_time() -> None:
    text = encode(LOCK)
    assert decode(text, "x") == LOCK
    backwards = Lock(dict(reversed(LOCK.images.items())), LOCK.kit, LOCK.documents)
    assert encode(backwards) == text
    assert json.loads(text)["version"] == 1
    assert max(map(len, text.decode().splitlines())) < 120  # a value a line: a difference reads well


def test_archives_are_the_same_everywhere() -> None:
    assert ARCHIVES == RESOLVED


def damage(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(encode(LOCK))
    change(document)
    return json.dumps(document).encode()


NGINX, SSHD = "docker.io/library/nginx:1.27", "sshd"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"), (b"[]", "no lock"), (b"{}", "no lock"), (b"\xff\xfe", "not valid JSON"),
        (encode(LOCK)[:-40], "not valid JSON"), (b"[" * 100_000, "not valid JSON"),
        (b'{"version": 1, "version": 1}', "twice"), (b" " * (MAX_SIZE + 1), "larger"),
        (damage(lambda d: d.update(version=2)), "version 2, and this program reads version 1"),
        (damage(lambda d: d.update(version=True)), "version True"),
        (damage(lambda d: d.update(extra={})), "unknown key 'extra'"),
        (damage(lambda d: d.update(images=[])), "'images' is not an object"),
        (damage(lambda d: d["images"].update(x=1)), "an object with digest and platforms"),
        (damage(lambda d: d["images"][NGINX].update(digest="sha256:../../etc/passwd")), "not a sha256 digest"),
        (damage(lambda d: d["images"][NGINX]["platforms"].update({"linux/amd64": 5})), "not a sha256 digest"),
        (damage(lambda d: d["images"][NGINX]["platforms"].update({"../x": A})), "no platform"),
        (damage(lambda d: d["kit"][SSHD].update(recipe="../x")), "40 hexadecimal"),
        (damage(lambda d: d["kit"][SSHD]["platforms"]["linux/amd64"].update({"x": "1 sha256:ab"})), "VERSION sha256"),
        (damage(lambda d: d["kit"][SSHD]["platforms"]["linux/amd64"].update({"../x": f"1 {A}"})), "VERSION sha256"),
        (damage(lambda d: d["documents"].update(x="md5:1")), "not a sha256 digest"),
    ],
)  # fmt: skip
def test_what_is_no_lock_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        decode(data, "web.lock")
    assert "web.lock" in caught.value.message
    assert caught.value.hint


def test_changes_are_a_line_each() -> None:
    new = Lock({NGINX: LockedImage(C, {"linux/amd64": B})}, LOCK.kit, LOCK.documents)
    assert changes(LOCK, LOCK) == []
    assert changes(LOCK, new) == [
        f"{NGINX}: {A} -> {C}", f"{NGINX} linux/arm64/v8: {C} -> (none)", f"oci-archive:x.tar: {B} -> (none)",
    ]  # fmt: skip


# -- the command line


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "web.yml").write_text(YAML)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_in(folder).items() if name.startswith("web-")}


def new_app(cache: Path, platform: Platform = AMD64) -> None:
    make_image(Store(cache), "docker.io/t/app:1", tar_of(member("bin/app", b"newer")), platform=platform)


def refused(work: Path, cache: Path, *says: str, arguments: tuple[str, ...] = ()) -> str:
    done = linuxkit("build", *arguments, "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 2, done.stderr
    for text in says:
        assert text in done.stderr
    return done.stderr


def test_a_build_takes_what_the_lock_has(work: Path, cache: Path) -> None:
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    first = outputs(work)
    linuxkit("lock", "web.yml", cwd=work, cache=cache)
    lock = (work / "web.lock").read_bytes()
    new_app(cache)
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    assert outputs(work) == first
    linuxkit("build", "--no-lock", "web.yml", cwd=work, cache=cache)
    assert outputs(work) != first
    (work / "web.lock").rename(work / "old.lock")
    linuxkit("build", "web.yml", cwd=work, cache=cache)  # the shortcut sees that the lock is gone
    assert outputs(work) != first
    linuxkit("build", "--lock", "old.lock", "web.yml", cwd=work, cache=cache)
    assert outputs(work) == first
    linuxkit("lock", "-o", "again.lock", "web.yml", cwd=work, cache=cache)
    assert (work / "again.lock").read_bytes() != lock


def test_the_lock_is_beside_the_yaml(work: Path, cache: Path) -> None:
    linuxkit("lock", "work/web.yml", cwd=work.parent, cache=cache)
    linuxkit("lock", "--name", "other", "work/web.yml", cwd=work.parent, cache=cache)
    assert (work / "web.lock").read_bytes() == (work / "other.lock").read_bytes()


def test_yaml_and_lock_disagree(work: Path, cache: Path) -> None:
    linuxkit("lock", "web.yml", cwd=work, cache=cache)
    new_app(cache, ARM64)
    refused(work, cache, "web.lock does not fit the YAML", "'docker.io/t/app:1' is in web.lock for linux/amd64 only",
            "linuxkit update --arch arm64 web.yml", arguments=("--arch", "arm64"))  # fmt: skip
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "t/tool:2"))
    refused(work, cache, "web.yml:12:11: services[1].image: docker.io/t/tool:2 is not in web.lock, which has "
                         "docker.io/t/tool:1", "linuxkit update web.yml")  # fmt: skip
    (work / "web.yml").write_text(YAML.replace("t/tool:1", f"t/tool:1@{A}"))
    refused(work, cache, f"the digest here is {A}, and images 'docker.io/t/tool:1' in web.lock has sha256:")
    (work / "web.yml").write_text(YAML + "  - {path: a, contents: b}\n")  # no other image: nothing to say
    linuxkit("build", "web.yml", cwd=work, cache=cache)


def test_a_lock_that_cannot_be_used(work: Path, cache: Path) -> None:
    (work / "web.lock").write_text("{}")
    refused(work, cache, "web.lock cannot be used: it is no lock")
    refused(work, cache, "none.lock cannot be read", arguments=("--lock", "none.lock"))
    refused(work, cache, "--lock and --no-lock", arguments=("--lock", "web.lock", "--no-lock"))
    linuxkit("build", "--no-lock", "web.yml", cwd=work, cache=cache)


def test_an_archive_that_changed_is_refused(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(YAML.replace("t/tool:1", "oci-archive:tool.tar"))
    linuxkit("cache", "export", "--outfile", "tool.tar", "t/tool:1", cwd=work, cache=cache)
    linuxkit("lock", "web.yml", cwd=work, cache=cache)
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    linuxkit("cache", "export", "--outfile", "tool.tar", "t/app:1", cwd=work, cache=cache)
    refused(work, cache, "oci-archive:tool.tar holds sha256:", "linuxkit update")


def test_yaml_that_is_fetched_is_locked(work: Path, cache: Path) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            body = served[0]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    served = [YAML.encode()]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/web.yml"
        linuxkit("lock", url, cwd=work, cache=cache)
        assert url in (work / "web.lock").read_text()
        linuxkit("build", url, cwd=work, cache=cache)
        served[0] += b"  - {path: evil, contents: x}\n"
        done = linuxkit("build", url, cwd=work, cache=cache, check=False)
        assert done.returncode == 2
        assert f"{url} has the digest" in done.stderr
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- registries


def serve(registry: Registry, folder: Path, content: bytes, tag: str = "1") -> None:
    """Put an image for two platforms into the registry."""
    store = Store(folder)
    for platform in (AMD64, ARM64):
        image = make_image(store, "test/app:1", tar_of(member("app", content + str(platform).encode())),
                           platform=platform)  # fmt: skip
    top = store.find("test/app:1")
    assert top is not None
    for blob in (folder / "blobs" / "sha256").iterdir():
        data = blob.read_bytes()
        registry.add_blob(data)
        if data.startswith(b"{") and b"schemaVersion" in data:
            kind = json.loads(data)["mediaType"]
            registry.add_manifest("test/app", data, kind, tag if f"sha256:{blob.name}" == top.digest else "")
    assert image.index is not None


def test_a_lock_holds_when_the_tag_moves(tmp_path: Path, work: Path, cache: Path) -> None:
    with Registry() as registry:
        serve(registry, tmp_path / "one", b"one")
        (work / "web.yml").write_text(YAML.replace("t/tool:1", f"{registry.host}/test/app:1"))
        linuxkit("lock", "web.yml", cwd=work, cache=cache)
        assert not [n for n in Store(cache).names() if "test/app" in n]  # only manifests were read
        linuxkit("build", "web.yml", cwd=work, cache=cache)
        first = outputs(work)
        serve(registry, tmp_path / "two", b"two")
        for folder in ("a", "b"):
            make_cache(tmp_path / folder)
        linuxkit("build", "web.yml", cwd=work, cache=tmp_path / "a/cache")
        assert outputs(work) == first
        linuxkit("build", "--no-lock", "web.yml", cwd=work, cache=tmp_path / "b/cache")
        assert outputs(work) != first


def test_update_prints_what_changed(tmp_path: Path, work: Path, cache: Path) -> None:
    with Registry() as registry:
        serve(registry, tmp_path / "one", b"one")
        serve(registry, tmp_path / "two", b"other", "2")
        one, two = (f"{registry.host}/test/app:{n}" for n in "12")
        (work / "web.yml").write_text(f"init: ['{one}', '{two}']\n")

        def update(*arguments: str, code: int = 0) -> list[str]:
            done = linuxkit("update", *arguments, "web.yml", cwd=work, cache=cache, check=False)
            assert done.returncode == code, done.stderr
            return done.stdout.splitlines()

        done = linuxkit("update", "web.yml", cwd=work, cache=cache, check=False)
        assert done.returncode == 2
        assert "linuxkit lock" in done.stderr
        linuxkit("lock", "--arch", "amd64", "--platform", "linux/arm64", "web.yml", cwd=work, cache=cache)
        first = (work / "web.lock").read_bytes()
        old = json.loads(first)["images"]
        assert sorted(old[one]["platforms"]) == ["linux/amd64", "linux/arm64"]
        assert update() == []
        assert update("--check") == []
        assert (work / "web.lock").read_bytes() == first
        serve(registry, tmp_path / "three", b"three")
        serve(registry, tmp_path / "four", b"four", "2")
        assert len(update("--check", code=1)) == 6
        assert (work / "web.lock").read_bytes() == first
        lines = update("--image", one)
        new = json.loads((work / "web.lock").read_bytes())["images"]
        assert lines == [
            f"{one}: {old[one]['digest']} -> {new[one]['digest']}",
            *(f"{one} {p}: {old[one]['platforms'][p]} -> {new[one]['platforms'][p]}"
              for p in ("linux/amd64", "linux/arm64")),
        ]  # fmt: skip
        assert new[two] == old[two]
        assert len(update()) == 3
        assert update("--image", "nobody/there", code=2) == []


# -- kit packages


def sources(make: Callable[..., Kit], root: Path, **options: Any) -> api.Sources:
    """Sources whose kit is the test's."""
    found = api.Sources(root)
    found.__dict__["kit"] = make(root.name, **options)
    found.__dict__["resolver"] = type(found.resolver)(found.store, {"kit": found.kit})
    return found


@pytest.fixture
def config(tmp_path: Path) -> Any:
    (tmp_path / "web.yml").write_text("init: [kit://tool]\n")
    return api.load(tmp_path / "web.yml")


def test_a_kit_package_is_made_of_the_locked_debs(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit], config: Any
) -> None:
    here = sources(kit, tmp_path / "a")
    lock = decode(encode(make_lock(config, here, [AMD64])), "web.lock")
    debs = lock.kit["tool"].platforms["linux/amd64"]
    assert {name: version for name, (version, _) in debs.items()} == {"libc6": "1.0", "libtool1": "1.0", "tool": "1.0"}
    first = pinned_image("kit://tool", AMD64, here, lock)

    mirror.archive.add("tool", program_deb("tool", {"usr/bin/tool": b"#!/new\n"}), version="1.1")
    mirror.archive.write()
    other = sources(kit, tmp_path / "b")  # another machine: the archive has both versions
    newest = other.kit.resolve("tool", AMD64)
    assert newest.digest != first.digest
    assert pinned_image("kit://tool", AMD64, other, lock).digest == first.digest
    assert pinned_image("kit://tool", AMD64, other, lock).reference == first.reference
    assert other.kit.resolve("tool", AMD64).digest == newest.digest  # side by side

    checked = renew(lock, config, other, build=False)
    digest = checked.kit["tool"].platforms["linux/amd64"]["tool"][1]
    assert [line for line in changes(lock, checked) if " image: " not in line] == [  # the new one needs no libraries
        *(f"kit://tool linux/amd64 {n}: 1.0 {debs[n][1][:12]} -> (none)" for n in ("libc6", "libtool1")),
        f"kit://tool linux/amd64 tool: 1.0 {debs['tool'][1][:12]} -> 1.1 {digest[:12]}",
    ]
    made = renew(lock, config, other)
    assert made.kit["tool"].platforms["linux/amd64"]["tool"][0] == "1.1"
    assert pinned_image("kit://tool", AMD64, other, made).digest == newest.digest
    assert renew(made, config, other) == made


def test_debs_that_the_archive_has_no_more(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit], config: Any
) -> None:
    lock = make_lock(config, sources(kit, tmp_path / "a"), [AMD64])
    mirror.archive.packages["trixie"] = [
        one for one in mirror.archive.packages["trixie"] if one[0]["Package"] != "tool"
    ]
    mirror.archive.add("tool", program_deb("tool", {"usr/bin/tool": b"#!/new\n"}), version="1.1")
    mirror.archive.write()
    with pytest.raises(ImageError, match=r"no longer has what the lock names: tool 1\.0 \(it has 1\.1\)") as caught:
        pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "b"), lock)
    assert "linuxkit update" in caught.value.hint


def test_a_version_that_is_not_the_digests(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit], config: Any
) -> None:
    """A lock that shows another version than it takes would deceive who reads it."""
    here = sources(kit, tmp_path / "a")
    text = encode(make_lock(config, here, [AMD64])).replace(b'"tool": "1.0 ', b'"tool": "2.0 ')
    lock = decode(text, "web.lock")
    with pytest.raises(ImageError, match=r"tool 2\.0 \(it has 1\.0\)"):
        pinned_image("kit://tool", AMD64, here, lock)
    (other := sources(kit, tmp_path / "b")).kit.resolve("tool", AMD64)
    mirror.stop()
    good = decode(text.replace(b'"tool": "2.0 ', b'"tool": "1.0 '), "web.lock")
    other.store.remove_name(other.kit.reference("tool"))
    assert pinned_image("kit://tool", AMD64, other, good).digest  # made of what was downloaded


def test_a_recipe_that_changed(tmp_path: Path, kit: Callable[..., Kit], config: Any) -> None:
    here = sources(kit, tmp_path / "a")
    lock = make_lock(config, here, [AMD64])
    places = asked(config, AMD64)
    agree(places, here, lock)
    with (tmp_path / "kit/tool/build.yml").open("a") as recipe:
        recipe.write("# changed\n")
    with pytest.raises(InputError, match="does not fit") as caught:
        agree(places, here, lock)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (1, "init[0]")
    assert problem.message.startswith("the recipe of kit://tool changed")
    new = renew(lock, config, here)
    assert [line for line in changes(lock, new) if "recipe" in line]
    agree(places, here, new)


# -- what compiles and compresses


def test_tools_are_in_the_lock_and_are_read_back() -> None:
    lock = Lock(tools={"ziglang": "0.17.1", "libzstd": "1.5.7"}, where="a.lock")
    assert decode(encode(lock), "a.lock").tools == lock.tools
    assert changes(lock, Lock(tools={"ziglang": "0.18.0", "libzstd": "1.5.7"})) == ["tool ziglang: 0.17.1 -> 0.18.0"]
    for bad in ({"a b": "1"}, {"a": 1}, {"a": "1 2"}, {"a": "x" * 99}, ["a"]):
        with pytest.raises(InputError, match="cannot be used"):
            decode(json.dumps({"version": 1, "tools": bad}).encode(), "a.lock")


@pytest.fixture
def compiles(tmp_path: Path, kit: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """compiles(version): from now on that version of the compiler is here; its programs say which it was."""
    recipe = "image: tool\ndescription: a program\nc:\n  - path: bin/x\n    sources: [a.c]\n"
    (tmp_path / "kit/tool/build.yml").write_text(recipe)
    (tmp_path / "guest/a.c").write_text("int main(void) { return 0; }\n")

    def choose(number: str) -> None:
        def compile_program(architecture: str, root: Path, sources: Any, flags: Any, output: Path, **_: Any) -> None:
            output.write_text(f"made by {number}")

        monkeypatch.setattr(toolchain, "identity", lambda: f"ziglang {number}")
        monkeypatch.setattr(toolchain, "compile_program", compile_program)

    return choose


def test_another_compiler_is_refused_by_a_lock_and_makes_the_kit_anew_without_one(
    tmp_path: Path, kit: Callable[..., Kit], compiles: Callable[[str], None], config: Any
) -> None:
    compiles("1.0")
    lock = decode(encode(make_lock(config, sources(kit, tmp_path / "a"), [AMD64])), "web.lock")
    assert lock.tools["ziglang"] == "1.0"
    first = pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "a"), lock)
    assert first.config.labels["org.linuxkit.compiler"] == "ziglang 1.0"

    compiles("2.0")
    assert pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "a"), lock).digest == first.digest  # it is there
    with pytest.raises(InputError, match=r"web\.lock was made with ziglang 1\.0, and here is ziglang 2\.0") as caught:
        pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "b"), lock)
    assert "pip install ziglang==1.0" in caught.value.hint and "linuxkit update" in caught.value.hint
    second = sources(kit, tmp_path / "a").kit.resolve("tool", AMD64)  # no cache decides which program it is
    assert second.digest != first.digest
    assert second.digest == sources(kit, tmp_path / "b").kit.resolve("tool", AMD64).digest
    with pytest.raises(InputError, match=r"ziglang 1\.0"):
        pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "a"), lock)
    renewed = renew(lock, config, sources(kit, tmp_path / "a"))
    assert "tool ziglang: 1.0 -> 2.0" in changes(lock, renewed)
    assert pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "b"), renewed).digest == second.digest

    compiles("1.0")  # and back: a package of the other compiler is in the cache
    assert pinned_image("kit://tool", AMD64, sources(kit, tmp_path / "a"), lock).digest == first.digest


def test_other_compressors_are_named(tmp_path: Path, kit: Callable[..., Kit], config: Any) -> None:
    said: list[str] = []
    here = sources(kit, tmp_path / "a")
    here = type(here)(**{**{f: getattr(here, f) for f in here.__dataclass_fields__ if f != "log"}, "log": said.append})
    lock = Lock(tools={"libzstd": "1.0.0", "unheard-of": "1"}, where="web.lock")
    agree([], here, lock)
    assert len(said) == 1 and said[0].startswith("warning: web.lock was made with libzstd 1.0.0, and here is 1.")
