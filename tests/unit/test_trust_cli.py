"""`linuxkit sign`, `verify`, `key generate`, and a build under a policy, as a user runs them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from linuxkit.oci.reference import parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store
from support.builds import YAML, files_in, linuxkit, make_cache
from support.client import transport
from support.images import make_image, member, tar_of
from support.registry import Registry

pytestmark = pytest.mark.unit
IMAGES = ("t/kernel:1", "t/init:1", "t/app:1", "t/tool:1")
POLICY = 'rules:\n  - images: ["t/*"]\n    keys: [release.pub]\n'


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "web.yml").write_text(YAML)
    (folder / "policy.yml").write_text(POLICY)
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                    folder / "release.key"], check=True, capture_output=True)  # fmt: skip
    subprocess.run(["openssl", "pkey", "-in", folder / "release.key", "-pubout", "-out", folder / "release.pub"],
                   check=True)  # fmt: skip
    return folder


def sign_all(cache: Path, work: Path, *names: str) -> None:
    from linuxkit.trust.keys import private_key
    from linuxkit.trust.sign import sign_stored

    key = private_key((work / "release.key").read_bytes(), "release.key", lambda: b"")
    for name in names or IMAGES:
        sign_stored(Store(cache), parse_reference(name), key, {})


def outputs(work: Path) -> list[str]:
    return [name for name in files_in(work) if name.startswith("web-")]


def test_a_build_takes_signed_images_only(work: Path, cache: Path) -> None:
    """Whatever was built before: segments and whole builds in the cache are no way around."""
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    linuxkit("build", "web.yml", cwd=work, cache=cache)  # now there is a shortcut
    built = files_in(work)
    for name in outputs(work):
        (work / name).unlink()
    sign_all(cache, work, *IMAGES[1:])
    for flags in ((), ("--offline",)):
        done = linuxkit("--trust-policy", "policy.yml", "build", *flags, "web.yml", cwd=work, cache=cache, check=False,
                        http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")  # fmt: skip
        assert done.returncode == 1
        assert "web.yml:2:3: kernel.image: image docker.io/t/kernel:1 (sha256:" in done.stderr
        assert "is not trusted by policy.yml:2: " in done.stderr
        assert "t/init" not in done.stderr
        assert not outputs(work)
    sign_all(cache, work)
    linuxkit("--trust-policy", "policy.yml", "build", "--offline", "web.yml", cwd=work, cache=cache)
    assert files_in(work) == built
    make_image(Store(cache), "docker.io/t/kernel:1", tar_of(member("kernel", b"another")))
    done = linuxkit("--trust-policy", "policy.yml", "build", "--offline", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 1, "an image under the name of a signed one"
    assert files_in(work) == built


@pytest.mark.parametrize("place", ["variable", "home", "xdg"])
def test_where_the_policy_is(work: Path, cache: Path, place: str) -> None:
    environment, file = {
        "variable": ({"LINUXKIT_TRUST_POLICY": "policy.yml"}, Path("policy.yml")),
        "home": ({}, Path(".config/linuxkit/policy.yml")),
        "xdg": ({"XDG_CONFIG_HOME": str(work / "conf")}, Path("conf/linuxkit/policy.yml")),
    }[place]
    (work / file).parent.mkdir(parents=True, exist_ok=True)
    (work / file).write_text("default: deny\n")
    done = linuxkit("build", "web.yml", cwd=work, cache=cache, check=False, **environment)
    assert done.returncode == 1
    assert done.stderr.count("its default is deny") == len(IMAGES)
    if place != "variable":
        (work / file).unlink()
        (work / file).symlink_to("nowhere")  # there, and not to be read: no policy is not what was meant
    else:
        environment["LINUXKIT_TRUST_POLICY"] = "none.yml"
    done = linuxkit("build", "web.yml", cwd=work, cache=cache, check=False, **environment)
    assert done.returncode == 2
    assert "No such file" in done.stderr


def test_other_commands_mind_the_policy(work: Path, cache: Path) -> None:
    for command in (("sbom", "--offline", "web.yml"), ("sbom", "--offline", "t/app:1"), ("lock", "web.yml"),
                    ("build", "--plan", "web.yml"), ("build", "--provenance", "p.json", "web.yml")):  # fmt: skip
        done = linuxkit("--trust-policy", "policy.yml", *command, cwd=work, cache=cache, check=False,
                        http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")  # fmt: skip
        assert done.returncode == 1, command
        assert "is not trusted by policy.yml:2" in done.stderr


def test_a_lock_is_no_way_around(work: Path, cache: Path) -> None:
    linuxkit("lock", "--offline", "web.yml", cwd=work, cache=cache)
    assert (work / "web.lock").is_file()
    done = linuxkit("--trust-policy", "policy.yml", "build", "--offline", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 1
    assert "4 images cannot be used" in done.stderr
    sign_all(cache, work)
    linuxkit("--trust-policy", "policy.yml", "build", "--offline", "web.yml", cwd=work, cache=cache)


def test_a_bundle_is_no_way_around(work: Path, cache: Path) -> None:
    """Signatures travel in it, and only they make its images trusted."""
    linuxkit("bundle", "--offline", "-o", "unsigned.tar", "web.yml", cwd=work, cache=cache)
    sign_all(cache, work)
    linuxkit("bundle", "--offline", "-o", "signed.tar", "web.yml", cwd=work, cache=cache)
    for file, status in (("unsigned.tar", 1), ("signed.tar", 0)):
        done = linuxkit("--trust-policy", "policy.yml", "build", "--bundle", file, "--name", "web",
                        cwd=work, cache=work / "empty", check=False)  # fmt: skip
        assert done.returncode == status, done.stderr
        assert ("is not trusted by policy.yml:2" in done.stderr) == bool(status)
    done = linuxkit("--trust-policy", "policy.yml", "bundle", "--offline", "-o", "x.tar", "web.yml", cwd=work,
                    cache=work / "empty", check=False)  # fmt: skip
    assert done.returncode == 1


def test_the_trust_section(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(YAML + "trust:\n  image: [t/app, nginx]\n  org: [other]\n")
    done = linuxkit("build", "web.yml", cwd=work, cache=cache)
    assert "nothing says who has to sign t/app:1; it is used unverified" in done.stderr
    assert "t/init" not in done.stderr
    (work / "allow.yml").write_text("default: allow\n")
    done = linuxkit("--trust-policy", "allow.yml", "build", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 1
    assert "docker.io/t/app:1 is not trusted: `trust:` wants it signed" in done.stderr
    (work / "some.yml").write_text('default: allow\nrules:\n  - images: ["t/app"]\n    keys: [release.pub]\n')
    sign_all(cache, work, "t/app:1")
    linuxkit("--trust-policy", "some.yml", "build", "--offline", "web.yml", cwd=work, cache=cache)
    (work / "web.yml").write_text(YAML + "trust:\n  org: [t]\n")
    done = linuxkit("--trust-policy", "some.yml", "build", "--offline", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 1
    assert "t/kernel:1 is not trusted: `trust:`" in done.stderr


def test_a_volume_takes_all_platforms_along(work: Path, cache: Path) -> None:
    """With `format: oci` a signature of one platform's manifest is not enough."""
    from linuxkit.oci.media import Descriptor
    from linuxkit.trust.keys import private_key
    from linuxkit.trust.sign import sign_stored

    volume = "  - name: data\n    image: t/tool:1\n    format: oci"
    (work / "web.yml").write_text(YAML.replace("  - name: data", volume))
    sign_all(cache, work, *IMAGES[:3])
    store = Store(cache)
    top = store.find("t/tool:1")
    assert top is not None
    import json

    item = json.loads(store.read_blob(top, 1 << 20))["manifests"][0]
    store.put_name("docker.io/t/tool:one", Descriptor(item["mediaType"], item["digest"], item["size"]))
    key = private_key((work / "release.key").read_bytes(), "release.key", lambda: b"")
    assert sign_stored(store, parse_reference("t/tool:one"), key, {})[0] == item["digest"]
    build = ("--trust-policy", "policy.yml", "build", "--offline", "--no-sbom", "web.yml")
    done = linuxkit(*build, cwd=work, cache=cache, check=False)
    assert done.returncode == 1
    assert "t/tool:1" in done.stderr
    sign_all(cache, work, "t/tool:1")
    linuxkit(*build, cwd=work, cache=cache)


def test_keys_signing_and_verifying(work: Path, cache: Path) -> None:
    done = linuxkit("key", "generate", "mine", cwd=work, cache=cache, LINUXKIT_KEY_PASSWORD="geheim")
    assert done.stderr == "wrote mine.key and mine.pub\n"
    assert stat.S_IMODE((work / "mine.key").stat().st_mode) == 0o600
    secret = (work / "mine.key").read_bytes()
    assert secret.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert subprocess.run(["openssl", "pkey", "-in", work / "mine.key", "-passin", "pass:geheim", "-pubout"],
                          capture_output=True, check=True).stdout == (work / "mine.pub").read_bytes()  # fmt: skip
    again = linuxkit("key", "generate", "mine", cwd=work, cache=cache, check=False, LINUXKIT_KEY_PASSWORD="x")
    assert (again.returncode, (work / "mine.key").read_bytes()) == (2, secret)
    (work / "mine.pub").rename(work / "my.pub")
    again = linuxkit("key", "generate", "mine", cwd=work, cache=cache, check=False, LINUXKIT_KEY_PASSWORD="x")
    assert (again.returncode, (work / "mine.key").read_bytes()) == (2, secret)
    assert not (work / "mine.pub").exists()

    with Registry() as registry:
        store = Store(cache)
        name = f"{registry.host}/t/app:1"
        found = store.find("t/app:1")
        assert found is not None
        RegistryClient(store, transport()).push(parse_reference(name), found)
        sign = ("sign", name, "--key", "mine.key", "-a", "commit=4f2a", "-a", "by=ci")
        for password, status, words in (("wrong", 2, "mine.key: the password is wrong"), ("geheim", 0, "signed "),
                                        ("geheim", 0, "was signed already")):  # fmt: skip
            done = linuxkit(*sign, cwd=work, cache=cache, check=False, COSIGN_PASSWORD=password)
            assert (done.returncode, words in done.stderr) == (status, True), done.stderr
            assert "geheim" not in done.stdout + done.stderr
        done = linuxkit(*sign, cwd=work, cache=cache, check=False)
        assert done.returncode == 2
        assert "no terminal to ask on" in done.stderr
        done = linuxkit("verify", name, "--key", "release.pub", "--key", "my.pub", cwd=work, cache=cache)
        assert done.stdout.startswith(f"{name} ({found.digest}): signed by my.pub (")
        assert done.stdout.endswith("), by=ci, commit=4f2a\n")
        done = linuxkit("verify", name, "--key", "release.pub", cwd=work, cache=cache, check=False)
        assert (done.returncode, "is not trusted by the keys given: signed by another key" in done.stderr) == (1, True)
        done = linuxkit("verify", name, cwd=work, cache=cache, check=False)
        assert (done.returncode, "neither a key nor a trust policy" in done.stderr) == (2, True)
        (work / "r.yml").write_text('rules: [{images: ["127.0.0.1:*/t/**"], keys: [my.pub]}]')
        linuxkit("--trust-policy", "r.yml", "verify", name, cwd=work, cache=cache)
    done = linuxkit("verify", name, "--key", "my.pub", "--offline", cwd=work, cache=cache, check=False)
    assert (done.returncode, "is not in the cache" in done.stderr) == (1, True)
    done = linuxkit("sign", "t/app:1", "--key", "my.pub", "--cache-only", cwd=work, cache=cache, check=False)
    assert (done.returncode, "not a private key" in done.stderr) == (2, True)
    done = linuxkit("verify", "t/app:1", "--key", "release.key", cwd=work, cache=cache, check=False)
    assert (done.returncode, "this is a private key" in done.stderr) == (2, True)


def test_a_password_is_asked_for_on_a_terminal(work: Path, cache: Path) -> None:
    """Not echoed, twice for a new key; what differs or is empty is no password."""
    import pty
    import select

    def talk(typed: list[bytes], *args: str) -> tuple[int, bytes]:
        """Types a line whenever it is asked for one: what is typed before is thrown away."""
        master, slave = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG")}
        environment |= {"LINUXKIT_CACHE": str(cache), "HOME": str(work)}
        child = subprocess.Popen([sys.executable, "-m", "linuxkit", *args], cwd=work, env=environment,
                                 stdin=slave, stdout=slave, stderr=slave, start_new_session=True)  # fmt: skip
        os.close(slave)
        shown, left = b"", list(typed)
        try:
            while select.select([master], [], [], 60)[0]:
                shown += os.read(master, 4096)
                if left and shown.endswith(b": ") and len(typed) - len(left) < shown.count(b": "):
                    os.write(master, left.pop(0))
        except OSError:
            pass  # the terminal is gone when the child is
        finally:
            os.close(master)
            if child.poll() is None:
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        return child.returncode, shown

    status, shown = talk([b"geheim\n"] * 2, "key", "generate", "asked")
    assert status == 0, shown
    assert shown.count(b"Password of the key") == 1
    assert b"Repeat" in shown
    sign = ("sign", "t/app:1", "--cache-only", "--key", "asked.key")
    assert talk([b"geheim\n"], *sign)[0] == 0
    status, shown = talk([b"falsch\n"], *sign)
    assert (status, b"the password is wrong" in shown) == (2, True)
    linuxkit("verify", "--offline", "t/app:1", "--key", "asked.pub", cwd=work, cache=cache)


def test_without_the_extra(work: Path, cache: Path) -> None:
    """Everything else works; what needs cryptography says how to get it."""
    (work / "hide.py").write_text(
        "import sys\nfor name in ('cryptography', 'nacl', 'sigstore'):\n    sys.modules[name] = None\n"
        "from linuxkit.cli.main import main\nmain()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG")}
    environment |= {"LINUXKIT_CACHE": str(cache), "HOME": str(work)}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "hide.py", *args], cwd=work, env=environment, capture_output=True,
                              text=True)  # fmt: skip

    for args in (("sign", "t/app:1", "--key", "release.key", "--cache-only"), ("key", "generate", "--no-password", "k"),
                 ("verify", "--offline", "t/app:1", "--key", "release.pub"),
                 ("--trust-policy", "policy.yml", "build", "web.yml")):  # fmt: skip
        done = run(*args)
        assert (done.returncode, "pip install 'linuxkit[trust]'" in done.stderr) == (1, True), done.stderr
    assert not outputs(work)
    (work / "free.yml").write_text('rules: [{images: ["t/*"], allow: true}]')
    assert run("--trust-policy", "free.yml", "build", "web.yml").returncode == 0
