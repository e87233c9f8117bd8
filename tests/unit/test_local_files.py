"""What comes from elsewhere (YAML, bundles, packages, repositories) reads and runs nothing of this machine."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from linuxkit import api
from linuxkit.config.load import Readers, load_document
from linuxkit.errors import HostError, ImageError, InputError
from linuxkit.oci.bundle import Bundle
from linuxkit.packages import flags, toolchain
from linuxkit.packages.image import own
from linuxkit.packages.inside import copy_sources, open_inside
from linuxkit.packages.recipe import parse
from linuxkit.pkg.context import build_files
from linuxkit.pkg.git import Git
from linuxkit.pkg.naming import package_name
from linuxkit.pkg.parse import read_package
from support.builds import YAML, linuxkit, make_cache
from support.packages import git

pytestmark = pytest.mark.unit
URL = "https://example.com/web.yml"
HEAD = "image: x\ndescription: x\n"


def landlock() -> bool:
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 2


def fetched(text: str, **options: bool) -> object:
    return load_document(URL, Readers(fetch=lambda url, limit: text.encode(), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "path"), [
    ("files:\n  - {path: a, source: /etc/shadow}\n", "files[0].source"),
    ("files:\n  - {path: b, contents: x}\n  - {path: a, source: /proc/self/environ, optional: true}\n",
     "files[1].source"),
    ("files:\n  - {path: a, source: ~/.ssh/id_ed25519}\n", "files[0].source"),
    ("init: [oci:/srv/layout]\n", "init[0].image"),
    ("kernel: {image: oci-archive:/srv/x.tar}\n", "kernel.image"),
    ("services:\n  - {name: a, image: docker-archive:x.tar}\n", "services[0].image"),
    ("onboot:\n  - {name: a, image: oci:x}\n", "onboot[0].image"),
    ("onshutdown:\n  - {name: a, image: oci:x}\n", "onshutdown[0].image"),
    ("services:\n  - {name: a, image: x, seccomp: /etc/shadow}\n", "services[0].seccomp"),
    ("volumes:\n  - {name: a, image: oci:x}\n", "volumes[0].image"),
])  # fmt: skip
def test_yaml_by_address_names_no_file_of_this_machine(text: str, path: str) -> None:
    with pytest.raises(InputError, match="asks for files of this machine") as caught:
        fetched(text)
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == (URL, path)
    assert problem.line
    assert "--allow-local-files" in caught.value.hint
    assert fetched(text, local=True)  # the control, and what the flag does


def test_yaml_by_address_has_no_package_of_this_machine() -> None:
    readers = Readers(fetch=lambda url, limit: b"init: ['@pkg:/srv/x']\n", check_reference=api.check_reference,
                      package=lambda path: pytest.fail("it looked"), local=True)  # fmt: skip
    with pytest.raises(InputError):
        load_document(URL, readers)


def test_every_command_says_so(tmp_path: Path) -> None:
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            text = YAML.encode() + b"  - {path: etc/s, source: secret}\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    cache = make_cache(tmp_path)
    (tmp_path / "secret").write_text("a secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/web.yml"
        for words in (["build"], ["check"], ["lock"], ["bundle", "-o", "x.tar"], ["sbom"]):
            done = linuxkit(*words, url, cwd=tmp_path, cache=cache, check=False)
            assert done.returncode == 2, words
            assert "secret is a file of this machine" in done.stderr
            assert "--allow-local-files" in done.stderr
        linuxkit("build", "--allow-local-files", "--format", "tar", url, cwd=tmp_path, cache=cache)
        assert b"a secret" in (tmp_path / "web.tar").read_bytes()
        done = linuxkit("build", "--format", "tar", url, cwd=tmp_path, cache=cache, check=False)
        assert done.returncode == 2  # also when the build before was allowed to
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- bundles


def bundled(tmp_path: Path, change: dict[str, object]) -> Path:
    """A bundle, changed by somebody who makes bundles."""
    import io
    import json
    import tarfile

    cache = make_cache(tmp_path)
    (tmp_path / "web.yml").write_text(YAML + "  - {path: etc/s, source: s}\n")
    (tmp_path / "s").write_text("of the bundle")
    linuxkit("bundle", "--offline", "-o", "x.tar", "web.yml", cwd=tmp_path, cache=cache)
    with tarfile.open(tmp_path / "x.tar") as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    files["linuxkit/bundle.json"] = json.dumps(json.loads(files["linuxkit/bundle.json"]) | change).encode()
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return tmp_path / "y.tar"


def test_a_bundle_reads_nothing_but_itself(tmp_path: Path) -> None:
    bundle = bundled(tmp_path, {"files": {}})
    (tmp_path / "s").write_text("of this machine")
    done = linuxkit("build", "--bundle", bundle, "--format", "tar", cwd=tmp_path, cache=tmp_path / "c", check=False)
    assert done.returncode == 2
    assert "s is not in bundle" in done.stderr
    assert not (tmp_path / "web.tar").exists()
    linuxkit("build", "--bundle", tmp_path / "x.tar", "--format", "tar", cwd=tmp_path, cache=tmp_path / "c")
    assert b"of the bundle" in (tmp_path / "web.tar").read_bytes()
    linuxkit("build", "--bundle", bundle, "--format", "tar", "web.yml", cwd=tmp_path, cache=tmp_path / "c")
    assert b"of this machine" in (tmp_path / "web.tar").read_bytes()  # the user's own YAML may


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "a\nb", "\x1b]52;", "x" * 300])
def test_a_bundle_names_no_other_place_to_write_to(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is none for files of a build"):
        Bundle(bundled(tmp_path, {"name": name}), tmp_path)


# -- recipes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/secret").write_text("a secret")
    package = tmp_path / "package"
    (package / "below").mkdir(parents=True)
    (package / "own").write_text("own")
    (package / "below/link").symlink_to("../own")
    (package / "direct").symlink_to(tmp_path / "secret")
    (package / "relative").symlink_to("../secret")
    (package / "twice").symlink_to("relative")
    (package / "folder").symlink_to(tmp_path / "out")
    return package


@pytest.mark.parametrize("name", ["direct", "relative", "twice", "folder/secret"])
def test_a_link_out_of_the_package_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    assert (folder / name).read_text() == "a secret"  # the control
    with pytest.raises(InputError, match="leads out of the package"):
        open_inside(folder, name)
    text = f"{HEAD}files: [{{path: a, source: {name}}}]\n"
    with pytest.raises(InputError) as caught:
        parse(text, folder=folder, file="build.yml", foreign=())
    assert "leads out" in caught.value.problems[0].message
    with pytest.raises(InputError, match="leads out of the package"):
        copy_sources(folder, tmp_path / "copy")


def test_a_link_within_the_package_is_followed(folder: Path, tmp_path: Path) -> None:
    recipe = parse(f"{HEAD}files: [{{path: a, source: below/link}}]\n", folder=folder, file="f", foreign=())
    (tmp_path / "scratch").mkdir()
    source = own(recipe, tmp_path / "scratch")["a"].source
    assert source is not None
    with source.open() as stream:
        assert stream.read() == b"own"


def test_a_link_that_changes_after_the_check(folder: Path, tmp_path: Path) -> None:
    """Nothing is opened by a path that was checked: the copy is made of what was opened."""
    recipe = parse(f"{HEAD}files: [{{path: a, source: own}}]\n", folder=folder, file="f", foreign=())
    (folder / "own").unlink()
    (folder / "own").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out"):
        own(recipe, tmp_path)


@pytest.mark.parametrize("flag", [
    "-MD", "-MF/etc/x", "-MD,-MF,/x", "-Wl,-Map=/x", "-Wp,-MD,/x", "-Wa,-a=/x", "-fplugin=/x.so", "-fplugin=x.so",
    "-specs=/x", "-B/x", "-o/x", "-o", "@/etc/shadow", "/etc/shadow", "-include/etc/shadow", "-include", "-imacros/x",
    "-I/etc", "-I../x", "-Ia/../../x", "-isystem/x", "-iquote/", "-L/x", "-l:/x", "-Xclang", "-Xlinker", "-mllvm",
    "-wrapper", "-wrapper=sh", "-fprofile-use=/x", "-fprofile-generate=/x", "-fdump-tree-all", "-save-temps",
    "-dumpdir/x", "-fsanitize-blacklist=/x",
    "-fsanitize-ignorelist=/x", "-fmodule-file=/x", "-ivfsoverlay/x", "--sysroot=/x", "-E",
    "-fuse-ld=/x", "-fcas-path=/x", "--config=/x", "-T/x", "-Wl,-T,/x", "-Wl,--dynamic-linker=/x", "-Wl,@x", "-x",
    "-D", "-gsplit-dwarf", "-ftime-trace=/x", "-foptimization-record-file=/x",
    "-fdiagnostics-add-output=sarif:file=/x", "-###",
    "-DA=1\n-MD", "-static\0x", "", "-", "--", "-DA\n",
])  # fmt: skip
def test_flags_that_are_not_allowed(flag: str) -> None:
    assert not flags.allowed(flag)


@pytest.mark.parametrize("flag", ["-DMAIN=swap_main", '-DV="a b/c"', "-DLOUD", "-UX", "-O2", "-Os", "-std=gnu11",
                                  "-Wall",
                                  "-Wno-unused-parameter", "-Werror=format", "-fno-strict-aliasing", "-fPIE", "-lm",
                                  "-Isrc/include", "-I.", "-march=x86-64-v2", "-mno-sse4.2", "-pthread"])  # fmt: skip
def test_flags_that_are_allowed(flag: str) -> None:
    assert flags.allowed(flag)


def test_a_recipe_with_such_a_flag() -> None:
    text = f"{HEAD}c:\n  - {{path: a, sources: [a.c], flags: [-DA, '-MD,-MF,/path']}}\n"
    with pytest.raises(InputError) as caught:
        parse(text, folder=Path("x"), file="build.yml", foreign=())
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (4, "c[0].flags[1]")
    assert "'-MD,-MF,/path' is not allowed" in problem.message


@pytest.mark.parametrize("place", ["../../secret", "link", "/etc/hostname", "../folder/secret"])
def test_extra_sources_are_of_the_repository(place: str, tmp_path: Path) -> None:
    package = tmp_path / "repo/pkg"
    package.mkdir(parents=True)
    (tmp_path / "secret").write_text("a secret")
    (package / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "repo/folder").symlink_to(tmp_path)
    (tmp_path / "repo/shared").write_text("shared")
    (tmp_path / "repo/.git").mkdir()
    text = "image: a\norg: t\nextra-sources: [{}]\n"
    (package / "build.yml").write_text(text.format("../shared:shared"))
    with build_files(read_package(package), lambda *_: None) as folder:  # the control
        assert (folder / "shared").read_text() == "shared"
    (package / "build.yml").write_text(text.format(f"{place}:x"))
    with pytest.raises(InputError, match="is outside of"), build_files(read_package(package), lambda *_: None):
        pass


# -- git

HOOKS = ("post-index-change", "pre-commit", "post-checkout", "reference-transaction", "fsmonitor-watchman")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A repository of which every key that we know of leaves a mark when what it names runs; its files have changed."""
    root = tmp_path / "repo"
    (root / "pkg").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "pkg/build.yml").write_text("image: a\norg: t\n")
    (root / "pkg/f").write_text("one\n")
    (root / ".gitattributes").write_text("* filter=evil diff=evil merge=evil text=auto\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    git(root, "tag", "v1.0.0")
    (root / "pkg/f").write_text("two\n")
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/mark-$1\ncat\n")
    script.chmod(0o755)
    for name in HOOKS:
        hook = root / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/mark-hook-{name}\n")
        hook.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "core.askPass", "core.pager", "core.editor", "core.gitProxy",
                "core.alternateRefsCommand", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process",
                "diff.external", "diff.evil.command", "diff.evil.textconv", "merge.evil.driver", "gpg.program",
                "gpg.ssh.program", "gpg.x509.program", "credential.helper", "credential.https://x.helper", "pager.diff",
                "pager.show", "pager.tag", "pager.ls-files", "alias.diff", "alias.rev-parse", "sequence.editor",
                "interactive.diffFilter", "difftool.evil.cmd", "trailer.evil.command",
                "remote.origin.uploadpack"):  # fmt: skip
        git(root, "config", key, f"{script} {key.replace('/', '_')}")
    for key, value in (("core.fsmonitorHookVersion", "1"), ("log.showSignature", "true"),
                       ("protocol.ext.allow", "always"),
                       ("filter.evil.required", "true"), ("remote.origin.url", f"ext::{script} ext"),
                       ("remote.origin.promisor", "true"), ("extensions.partialClone", "origin"),
                       ("core.repositoryFormatVersion", "1"), ("color.ui", "always"),
                       ("column.ui", "always")):  # fmt: skip
        git(root, "config", key, value)
    return root


def marks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("mark-*"))


def test_git_runs_nothing_that_a_repository_names(hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("init: ['@pkg:repo/pkg']\n")
    linuxkit("build", "--dry-run", "web.yml", cwd=tmp_path, cache=tmp_path / "cache", check=False)
    name = package_name(hostile / "pkg")
    assert "-dirty-" in name
    asked = Git(hostile / "pkg")
    assert asked.inside
    assert asked.dirty(hostile / "pkg")
    assert asked.tag_at_head() == "v1.0.0"
    assert asked.go_version().startswith("v1.0.0-")
    assert len(asked.contents()) == 64
    assert len(asked.head()) == 40
    for path in hostile.rglob("*"):  # a missing object: git would fetch it from the promisor
        if path.parent.parent.name == "objects" and len(path.name) == 38:
            path.unlink()
    with pytest.raises(InputError):
        asked.go_version()
    asked.dirty(hostile / "pkg")
    assert marks(tmp_path) == []


def test_the_control_git_by_itself_runs_them(hostile: Path, tmp_path: Path) -> None:
    for words in (["diff", "--quiet", "HEAD", "--", "."], ["ls-files", "--others"], ["diff", "HEAD"]):
        subprocess.run(["git", "-C", str(hostile), *words], capture_output=True, timeout=60, check=False)
    assert {"mark-core.fsmonitor", "mark-filter.evil.process"} <= set(marks(tmp_path))


def test_what_the_user_configured_holds(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[core]\n\tquotePath = false\n[filter \"mine\"]\n\tclean = cat\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.name")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "me")
    asked = Git(hostile)
    assert asked.ask("config", "core.quotePath") == "false\n"
    assert asked.ask("config", "user.name") == "me\n"
    assert asked.ask("config", "filter.mine.clean") == "cat\n"
    assert asked.ask("config", "filter.evil.clean") == "\n"


# -- the compiler


def compiled(tmp_path: Path, text: str, *, confined: bool) -> bytes:
    folder, out = tmp_path / "sources", tmp_path / "made"
    folder.mkdir(exist_ok=True)
    out.mkdir(exist_ok=True)
    (folder / "a.c").write_text(text)
    toolchain.compile_program("amd64", folder, ["a.c"], [], out / "a", cache=tmp_path / "cache", confined=confined)
    return (out / "a").read_bytes()


@pytest.mark.skipif(platform.system() != "Linux" or not landlock(), reason="the kernel has no Landlock")
def test_a_source_names_no_file_of_this_machine(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the compiler's place copies what the source names; the control is the same without the limits."""
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("a secret")
    copier = tmp_path_factory.mktemp("tools") / "cc.py"
    copier.write_text("import re, sys, pathlib\nout = sys.argv[sys.argv.index('-o') + 1]\n"
                      "name = re.search('\"(.*)\"', pathlib.Path(sys.argv[-1]).read_text())[1]\n"
                      "pathlib.Path(out).write_bytes(pathlib.Path(name).read_bytes())\n")  # fmt: skip
    monkeypatch.setattr(toolchain, "compiler", lambda architecture: [sys.executable, "-S", str(copier)])
    own = toolchain._own_folders()
    monkeypatch.setattr(toolchain, "_own_folders", lambda: [*own, copier.parent])
    text = f'#include "{secret}"\n'
    assert compiled(tmp_path, text, confined=False) == b"a secret"
    with pytest.raises(HostError, match="Permission denied"):
        compiled(tmp_path, text, confined=True)
    (tmp_path / "sources/b.h").write_text("own")
    assert compiled(tmp_path, '#include "b.h"\n', confined=True) == b"own"



def test_what_the_compiler_inherits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    monkeypatch.setattr(toolchain, "compiler", lambda architecture: ["true"])
    monkeypatch.setattr(toolchain.host, "run", lambda command, **options: seen.update(options["env"]))
    monkeypatch.setenv("CPATH", "/evil")
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    (tmp_path / "a.c").touch()
    toolchain.compile_program("amd64", tmp_path, ["a.c"], [], tmp_path / "out", cache=tmp_path / "cache")
    assert "CPATH" not in seen
    assert seen["PATH"] == "/bin:/usr/bin"
