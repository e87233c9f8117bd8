"""Azure: blobs as Azurite plays them, the Resource Manager as our strict fake does; failures put in on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from linuxkit.clouds import azure as azure_place
from linuxkit.clouds.azure_blob import string_to_sign
from linuxkit.errors import HostError, InputError, LinuxkitError, MachineError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Pushed, settle
from support.clouds.arm import SUBSCRIPTION, TENANT, ArmFake, blob_of
from support.clouds.azurite import Storage, azurite
from support.clouds.proxy import Proxy
from support.clouds.strict import Asked, RefusedError, Reply, Strict

pytestmark = pytest.mark.interop
MIB = 1 << 20
CONTAINER = "linuxkitcontainer"


def vhd(path: Path, *, kind: int = 2, content: bytes = b"") -> Path:
    """A fixed VHD of 21 MiB: something in front, in the middle, over the edge of a range, and the footer."""
    size = 21 * MIB
    footer = bytearray(struct.pack(">8sIIQI4sI4sQQIII", b"conectix", 2, 0x10000, (1 << 64) - 1, 0, b"test", 1, b"Wi2k",
                                   size, size, 0, kind, 0).ljust(512, b"\0"))  # fmt: skip
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    entry = bytes([0x80, 0, 0, 0, 0xEF, 0, 0, 0]) + struct.pack("<II", 2048, 2048)  # an EFI system partition
    with path.open("wb") as stream:
        stream.write(b"boot code".ljust(446, b".") + entry.ljust(64, b"\0") + b"\x55\xaa" + content)
        stream.seek(9 * MIB + 1000)
        stream.write(b"middle" + bytes(5000) + b"end")
        stream.seek(16 * MIB - 3)
        stream.write(b"over the edge")
        stream.seek(size)
        stream.write(footer)
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return vhd(tmp_path / "web.vhd")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with azurite(tmp_path_factory.mktemp("azurite")) as storage:
        yield storage


class Azure:
    """The Resource Manager, and the blobs behind a proxy that counts and spoils."""

    def __init__(self, engine: Storage, arm: ArmFake, blobs: Proxy) -> None:
        self.engine, self.arm, self.blobs = engine, arm, blobs
        self.more: dict[str, str] = {}
        self.transport = Transport(sleep=lambda s: None)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AZURE_AUTHORITY_HOST": self.arm.url, "AZURE_RESOURCE_MANAGER_URL": self.arm.url,
            "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "app", "AZURE_CLIENT_SECRET": "geheim",
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION, "HOME": "/nowhere", "PATH": "",
        } | self.more  # fmt: skip

    @contextmanager
    def job(self, verb: str, *, keep: bool = False, dry_run: bool = False, data: bytes | None = None,
            output: Any = lambda data: None, **given: Any) -> Iterator[tuple[Job, list[str]]]:  # fmt: skip
        if verb == "push":
            given = {"resource_group": "images", "storage_account": "images", **given}
        settings = getattr(azure_place, f"{verb.upper()}_SETTINGS")
        said: list[str] = []
        with Journal(said.append, keep=keep) as journal:
            yield Job(settle(settings, given, self.environment), self.environment, self.transport, journal, said.append,
                      output, data=data, dry_run=dry_run, keep=keep,
                      sleep=lambda s: None), said  # fmt: skip

    def push(self, path: Path, **given: Any) -> tuple[Pushed, list[str]]:
        with self.job("push", **given) as (job, said):
            pusher = azure_place.Push(job, LocalImage(path, "vhd"))
            pusher.preflight()
            pushed = pusher.push()
        return pushed, said

    def blobs_left(self) -> list[str]:
        return self.engine.names(CONTAINER)

    @property
    def image(self) -> str:
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/images/providers/Microsoft.Compute/images/web"


@pytest.fixture
def azure(engine: Storage) -> Iterator[Azure]:
    """With a resource group, a storage account, and an empty container."""
    for name in engine.names(CONTAINER):
        engine.ask("DELETE", f"/{CONTAINER}/{name}")
    engine.ask("PUT", f"/{CONTAINER}?restype=container")
    look = lambda url: engine.read(*blob_of(url))  # noqa: E731
    with ArmFake(look) as arm, Proxy(engine.url) as blobs:
        arm.account("images", "images", f"{blobs.url}/{engine.account}", engine.key)
        yield Azure(engine, arm, blobs)


def test_a_disk_becomes_an_image_once(azure: Azure, disk: Path) -> None:
    progress: list[tuple[str, int, int]] = []
    with azure.job("push") as (job, _):
        object.__setattr__(job, "progress", lambda *told: progress.append(told))
        pusher = azure_place.Push(job, LocalImage(disk, "vhd"))
        pusher.preflight()
        pushed = pusher.push()
    assert (pushed.identity, pushed.there_before, pushed.run_with) == (azure.image, False, "linuxkit run azure web")
    image = azure.arm.resources[azure.image.lower()]
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    assert azure.arm.pushed[azure.image] == digest  # what Azure read from the blob
    assert image["tags"] == {"linuxkit-sha256": digest}
    assert image["properties"]["hyperVGeneration"] == "V2"
    assert image["location"] == "westeurope"
    assert azure.blobs_left() == []  # it was on the way only
    assert progress[-1][1] == progress[-1][2]
    pages = [body for method, path, body in azure.blobs.seen if "comp=page" in path and method == "PUT"]
    assert len(pages) == 5  # of six ranges, one is all zero; the footer is in the last

    sent = azure.blobs.count("PUT")
    pushed, _ = azure.push(disk)
    assert (pushed.identity, pushed.there_before) == (azure.image, True)
    assert azure.blobs.count("PUT") == sent

    vhd(disk, content=b"other")
    with pytest.raises(InputError, match="there is an image web already, with other content") as caught:
        azure.push(disk)
    assert f"az image delete --ids {azure.image}" in caught.value.hint
    with pytest.raises(InputError, match="nothing else") as caught:
        azure.push(vhd_for_bios(disk), generation="V2")
    assert azure.push(disk, img_name="bios")[0].name == "bios"
    assert azure.arm.resources[azure.image.lower()[:-3] + "bios"]["properties"]["hyperVGeneration"] == "V1"


def vhd_for_bios(path: Path) -> Path:
    with path.open("r+b") as stream:
        stream.seek(446 + 4)
        stream.write(b"\x06")
    return path


def test_the_disk_alone_with_its_checksum(azure: Azure, disk: Path) -> None:
    pushed, _ = azure.push(disk, vhd_only=True)
    assert pushed.identity.endswith(f"/images/{CONTAINER}/web.vhd")
    status, headers, data = azure.engine.ask("GET", f"/{CONTAINER}/web.vhd")
    assert (status, data == disk.read_bytes()) == (200, True)
    assert headers["content-md5"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert headers["x-ms-blob-type"] == "PageBlob"
    pages = ElementTree.fromstring(azure.engine.ask("GET", f"/{CONTAINER}/web.vhd?comp=pagelist")[2])
    ranges = [(int(page.findtext("Start", "")), int(page.findtext("End", "")) + 1) for page in pages]
    assert ranges == [(0, 512), (9 * MIB + 512, 9 * MIB + 6144), (16 * MIB - 512, 16 * MIB), (16 * MIB, 16 * MIB + 512),
                      (21 * MIB, 21 * MIB + 512)]  # fmt: skip
    assert azure.push(disk, vhd_only=True)[0].there_before
    vhd(disk, content=b"other")
    with pytest.raises(InputError, match=r"there is a web.vhd in linuxkitcontainer already, with other content"):
        azure.push(disk, vhd_only=True)
    assert azure.arm.kinds() == []


def test_a_container_that_is_missing_is_made(azure: Azure, disk: Path) -> None:
    azure.push(disk, container="fresh", vhd_only=True)
    assert azure.engine.names("fresh") == ["web.vhd"]
    azure.blobs.spoil("comp=metadata", 403)
    with pytest.raises(NetworkError), azure.job("push", container="other") as (job, said):
        pusher = azure_place.Push(job, LocalImage(disk, "vhd"))
        pusher.preflight()
        pusher.push()
    assert [line.partition(" http")[0] for line in said] == ["removed: blob", "removed: container"]
    assert azure.engine.ask("GET", "/other?restype=container")[0] == 404


def test_with_the_login_where_there_is_no_key(azure: Azure, disk: Path) -> None:
    """And the token ends in the middle, while several threads have it."""
    azure.arm.keys_allowed = False
    pages: list[int] = []
    marks: dict[str, str] = {}

    class Blobs(Strict):
        def reply(self, asked: Asked) -> Reply:
            good = azure.arm.tokens.get(asked.headers.get("authorization", "").removeprefix("Bearer "))
            if good != "https://storage.azure.com":
                return 401, {}, b"<Error><Code>InvalidAuthenticationInfo</Code></Error>"
            assert asked.headers["x-ms-version"]
            if asked.method == "HEAD":
                size = {"content-length": str(disk.stat().st_size)}
                return (200, size | marks, b"") if marks else (404, {}, b"")
            if asked.query.get("comp") == "page":
                if not pages:
                    azure.arm.expire()  # in the middle
                pages.append(len(asked.body))
            if asked.method == "PUT" and asked.query.get("comp") in (None, "metadata"):
                marks.clear()
                marks.update({k: v for k, v in asked.headers.items() if k.startswith("x-ms-meta-")})
            if asked.query.get("comp") == "pagelist":
                page = f"<PageRange><Start>0</Start><End>{sum(pages) - 1}</End></PageRange>"
                return 200, {}, f"<PageList>{page}</PageList>".encode()
            return 200, {}, b""

    with Blobs() as blobs:
        azure.arm.account("images", "images", f"{blobs.url}/images", "")
        pushed, _ = azure.push(disk, vhd_only=True, img_name="other")
    assert pushed.name == "other"
    assert marks == {"x-ms-meta-linuxkit_sha256": hashlib.sha256(disk.read_bytes()).hexdigest()}
    assert azure.arm.count("POST", "/token") >= 3  # the manager's, the storage's, and another one of the storage's


def test_azurite_takes_the_login_too(azure: Azure, disk: Path, tmp_path: Path) -> None:
    """Over TLS only, and it looks into the token: for whom it is, from whom, and how long."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "crt.pem"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    certificate = tmp_path / "crt.pem"
    more = ["--oauth", "basic", "--cert", str(certificate), "--key", str(tmp_path / "key.pem")]
    with azurite(tmp_path, *more) as storage:
        azure.arm.account("images", "images", storage.endpoint, "", allowSharedKeyAccess=False)
        azure.transport = Transport(cert_files=(certificate,), sleep=lambda s: None)
        assert azure.push(disk, vhd_only=True)[0].identity == f"{storage.endpoint}/{CONTAINER}/web.vhd"
        assert azure.push(disk, vhd_only=True)[0].there_before
        assert storage.read(CONTAINER, "web.vhd") == disk.read_bytes()
    assert azure.arm.count("POST", "listKeys") == 0


def test_a_version_in_a_gallery(azure: Azure, disk: Path) -> None:
    with pytest.raises(InputError, match="there is no gallery shared") as caught:
        azure.push(disk, gallery="shared")
    assert "az sig create --gallery-name shared" in caught.value.hint
    gallery = azure.arm.add(azure.image.replace("images/web", "galleries/shared"))
    first, _ = azure.push(disk, gallery="shared")
    assert first.identity == f"{gallery}/images/web/versions/1.0.0"
    assert first.run_with == f"linuxkit run azure {first.identity}"
    assert azure.arm.pushed[first.identity] == hashlib.sha256(disk.read_bytes()).hexdigest()
    definition = azure.arm.resources[f"{gallery}/images/web".lower()]["properties"]
    assert (definition["hyperVGeneration"], definition["architecture"]) == ("V2", "x64")
    assert azure.push(disk, gallery="shared")[0].there_before
    second, _ = azure.push(vhd(disk, content=b"other"), gallery="shared")
    assert second.identity.endswith("/versions/1.0.1")
    with pytest.raises(InputError, match="web in shared is for V2 x64, and this disk for V1 x64"):
        azure.push(disk, gallery="shared", generation="V1")
    azure.arm.fails["galleries/images/versions"] = ("ReplicationFailed", "no room")
    with pytest.raises(MachineError, match=r"could not finish version 1\.0\.2 of web: ReplicationFailed: no room"):
        azure.push(vhd(disk, content=b"third"), gallery="shared")
    assert azure.arm.kinds() == ["galleries/images", *["galleries/images/versions"] * 2]


def test_a_dry_run_changes_nothing(azure: Azure, disk: Path) -> None:
    _, said = azure.push(disk, dry_run=True)
    assert any(line.startswith("would send: 5 ranges of 4 MiB") for line in said)
    assert any(line.startswith("would send: PUT") and '"hyperVGeneration": "V2"' in line for line in said)
    assert (azure.arm.kinds(), azure.blobs_left(), azure.blobs.count("PUT")) == ([], [], 0)


@pytest.mark.parametrize(("where", "status", "says"), [
    ("comp=page ", 403, "does not allow PUT"), ("comp=pagelist", 404, "does not have"),
    ("comp=metadata", 409, "there is one already"), ("/images/web?", 409, "refuses PUT .*QuotaExceeded"),
])  # fmt: skip
def test_a_failure_half_way_leaves_nothing(azure: Azure, disk: Path, where: str, status: int, says: str) -> None:
    quota = b'{"error": {"code": "QuotaExceeded", "message": "too many images"}}'
    if "/images/web" in where:
        azure.arm.spoil(f"PUT {azure.image}", status, quota)
    else:
        azure.blobs.spoil(where.replace("page ", "page\n"), status, quota)
    with pytest.raises(NetworkError, match=says), azure.job("push") as (job, said):
        pusher = azure_place.Push(job, LocalImage(disk, "vhd"))
        pusher.preflight()
        pusher.push()
    assert any(line.startswith("removed: blob ") for line in said)
    assert (azure.arm.kinds(), azure.blobs_left()) == ([], [])


def test_what_azure_could_not_make_is_removed(azure: Azure, disk: Path) -> None:
    azure.arm.fails["images"] = ("AllocationFailed", "no room")
    with pytest.raises(MachineError, match="could not finish the image web: AllocationFailed: no room"):
        azure.push(disk)
    assert (azure.arm.kinds(), azure.blobs_left()) == ([], [])


def test_an_image_of_somebody_else_that_came_between_stays(azure: Azure, disk: Path) -> None:
    with pytest.raises(NetworkError), azure.job("push") as (job, _):
        pusher = azure_place.Push(job, LocalImage(disk, "vhd"))
        pusher.preflight()
        azure.arm.add(azure.image, tags={"linuxkit-sha256": "other"})
        azure.arm.refuses["images"] = RefusedError(409, "Conflict", "there is one")
        pusher.push()
    assert azure.arm.kinds() == ["images"]


def test_what_is_temporary_is_tried_again(azure: Azure, disk: Path) -> None:
    azure.blobs.spoil("comp=page\n", 500)
    azure.blobs.spoil("comp=page\n", 503, headers={"retry-after": "0"}, after=2)
    azure.blobs.cut("comp=page\n", after=4)
    azure.arm.spoil("/operations/", 429, headers={"retry-after": "1"})
    azure.arm.cut("GET /subscriptions")
    work, over = azure.arm.reply, list[int]()

    def expire(asked: Asked) -> Reply:
        if asked.path.startswith("/operations/") and not over:
            over.append(1)
            azure.arm.expire()  # in the middle
        return work(asked)

    azure.arm.reply = expire  # type: ignore[method-assign]
    azure.push(disk)
    assert over
    assert azure.arm.pushed[azure.image] == hashlib.sha256(disk.read_bytes()).hexdigest()


def test_bytes_that_change_on_the_way_are_seen(azure: Azure, disk: Path) -> None:
    azure.blobs.answer("comp=pagelist", lambda body: (
        200, b"<PageList><PageRange><Start>0</Start><End>511</End></PageRange></PageList>"))  # fmt: skip
    with pytest.raises(NetworkError, match="holds 512 bytes instead of the"):
        azure.push(disk)
    assert azure.blobs_left() == []


def test_an_upload_that_was_cut_off_is_gone_on_with(azure: Azure, disk: Path) -> None:
    for name, given in (("web-", {}), ("web.vhd", {"vhd_only": True})):
        azure.blobs.spoil("comp=page\n", 403, after=2, times=9)
        with pytest.raises(NetworkError):
            azure.push(disk, keep=True, **given)
        azure.blobs.rules.clear()
        sent = azure.blobs.count("PUT", "comp=page")
        _, said = azure.push(disk, **given)
        (line,) = [line for line in said if line.startswith("going on with")]
        assert f"/{CONTAINER}/{name}" in line
        assert azure.blobs.count("PUT", "comp=page") - sent == 5 - 2
    assert azure.engine.read(CONTAINER, "web.vhd") == disk.read_bytes()
    assert azure.arm.pushed[azure.image] == hashlib.sha256(disk.read_bytes()).hexdigest()
    azure.blobs.spoil("comp=page\n", 403, times=9)
    with pytest.raises(NetworkError):
        azure.push(disk, keep=True, vhd_only=True, img_name="half")
    vhd(disk, content=b"other")
    with pytest.raises(InputError, match="with other content"):  # half of something else
        azure.push(disk, vhd_only=True, img_name="half")


def test_with_keep_what_is_left_is_listed(azure: Azure, disk: Path) -> None:
    azure.arm.fails["images"] = ("AllocationFailed", "no room")
    with pytest.raises(MachineError), azure.job("push", keep=True) as (job, said):
        pusher = azure_place.Push(job, LocalImage(disk, "vhd"))
        pusher.preflight()
        pusher.push()
    (blob,) = azure.blobs_left()
    assert f"az storage blob delete --blob-url {azure.blobs.url}/images/{CONTAINER}/{blob}" in said[-1]
    assert f"az resource delete --ids {azure.image}" in said[-2]
    azure.arm.fails.clear()
    del azure.arm.resources[azure.image.lower()]
    sent = azure.blobs.count("PUT", "comp=page")
    azure.push(disk)  # the blob is there, and whole
    assert azure.blobs.count("PUT", "comp=page") == sent


@pytest.mark.parametrize(("given", "says", "hint"), [
    ({"resource_group": "none"}, "there is no resource group none", "az group create --name none"),
    ({"storage_account": "nothing"}, "there is no storage account nothing", "az storage account create --name nothing"),
    ({"storage_account": "A-b"}, "cannot be the name of one", "a-z 0-9"),
    ({"storage_account": "lake"}, "takes no page blobs", "StorageV2"),
    ({"container": "Web_1"}, "cannot be the name of a container", "hyphens"),
    ({"img_name": "-"}, "'-' cannot be the name of an image", "--img-name"),
    ({"generation": "2"}, "--generation 2 is not known", "V2"),
    ({"gallery": "a", "vhd_only": True}, "cannot be used together", ""),
    ({"subscription": "x/y"}, "is not the id of a subscription", "az account list"),
    ({"subscription": "none"}, "Azure does not have .*SubscriptionNotFound", "--subscription"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_sent(azure: Azure, disk: Path, given: dict[str, Any], says: str,
                                                   hint: str) -> None:  # fmt: skip
    azure.arm.account("images", "lake", "http://127.0.0.1:1", "", isHnsEnabled=True)
    with pytest.raises(LinuxkitError, match=says) as caught:
        azure.push(disk, **given)
    assert hint in caught.value.hint
    assert azure.blobs.count("PUT") == 0


def test_what_is_not_a_fixed_disk_is_refused(azure: Azure, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a VHD that grows"):
        azure.push(vhd(tmp_path / "a.vhd", kind=3))
    (tmp_path / "b.vhd").write_bytes(bytes(1024))
    with pytest.raises(InputError, match="is not a VHD"):
        azure.push(tmp_path / "b.vhd")
    path = vhd(tmp_path / "c.vhd")
    with path.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    with pytest.raises(InputError, match="is damaged"):
        azure.push(path)


def test_a_permission_that_is_missing_is_named(azure: Azure, disk: Path) -> None:
    no = ["Microsoft.Compute/images/write"]
    azure.arm.granted = [{"actions": ["Microsoft.Compute/*", "*/read"], "notActions": no}]
    with pytest.raises(InputError, match=r"the login may not Microsoft\.Compute/images/write in images"):
        azure.push(disk)
    azure.arm.granted.append({"actions": ["microsoft.compute/IMAGES/*"], "notActions": []})
    azure.push(disk)


# -- logins


def login(azure: Azure, disk: Path, **more: str) -> None:
    for name in ("AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_CLIENT_ID"):
        azure.more[name] = ""
    azure.more |= more
    azure.push(disk, dry_run=True)


def test_the_wrong_secret_is_said_and_not_shown(azure: Azure, disk: Path) -> None:
    azure.more = {"AZURE_CLIENT_SECRET": "falsch"}
    with pytest.raises(InputError, match="AADSTS7000215") as caught:
        azure.push(disk)
    assert "AZURE_CLIENT_SECRET" in caught.value.hint
    assert "falsch" not in str(caught.value) + caught.value.hint
    with pytest.raises(InputError, match="not all that belongs to it"):
        login(azure, disk, AZURE_CLIENT_SECRET="geheim")
    with pytest.raises(InputError, match="no Azure login was found") as caught:
        login(azure, disk, AZURE_CLIENT_SECRET="")
    assert "az login" in caught.value.hint
    with pytest.raises(InputError, match=r"AZURE_AUTHORITY_HOST=http://example\.org is not an https URL"):
        login(azure, disk, AZURE_AUTHORITY_HOST="http://example.org")


def test_a_federated_token(azure: Azure, disk: Path) -> None:
    file = disk.parent / "token"
    file.write_text("a.b.c\n")
    login(azure, disk, AZURE_TENANT_ID=TENANT, AZURE_CLIENT_ID="app", AZURE_FEDERATED_TOKEN_FILE=str(file))
    assert set(azure.arm.assertions) == {"a.b.c"}


def test_a_client_certificate(azure: Azure, disk: Path) -> None:
    pem = disk.parent / "app.pem"


    def openssl(*args: object) -> bytes:
        command = ["openssl", *map(str, args)]
        return subprocess.run(command, cwd=disk.parent, check=True, capture_output=True).stdout

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=app", "-days", 2, "-keyout", "key.pem",
            "-out", "crt.pem")  # fmt: skip
    pem.write_bytes((disk.parent / "crt.pem").read_bytes() + (disk.parent / "key.pem").read_bytes())
    more = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "app", "AZURE_CLIENT_CERTIFICATE_PATH": str(pem)}
    login(azure, disk, **more)
    head, claims, signature = azure.arm.assertions[0].split(".")

    def decode(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    certificate = openssl("x509", "-outform", "DER", "-in", pem)
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()
    assert json.loads(decode(head)) == {"alg": "RS256", "typ": "JWT", "x5t#S256": thumbprint}
    said = json.loads(decode(claims))
    assert (said["iss"], said["sub"], said["exp"] - said["nbf"]) == ("app", "app", 600)
    assert said["aud"] == f"{azure.arm.url}/{TENANT}/oauth2/v2.0/token"
    (disk.parent / "signature").write_bytes(decode(signature))
    (disk.parent / "signed").write_text(f"{head}.{claims}")
    (disk.parent / "public").write_bytes(openssl("x509", "-pubkey", "-noout", "-in", pem))
    openssl("dgst", "-sha256", "-verify", "public", "-signature", "signature", "signed")
    pem.write_bytes((disk.parent / "key.pem").read_bytes())
    with pytest.raises(InputError, match="there is no certificate in it"):
        login(azure, disk, **more)


def test_a_managed_identity(azure: Azure, disk: Path) -> None:
    login(azure, disk, AZURE_POD_IDENTITY_AUTHORITY_HOST=azure.arm.url)
    assert azure.arm.count("GET", "/metadata/identity/oauth2/token")


def test_an_identity_of_app_service(azure: Azure, disk: Path) -> None:
    login(azure, disk, IDENTITY_ENDPOINT=f"{azure.arm.url}/msi/token", IDENTITY_HEADER="header")
    assert azure.arm.count("GET", "/msi/token")
    with pytest.raises(InputError, match="gives no token: not this one"):
        login(azure, disk, IDENTITY_HEADER="other")
    with pytest.raises(InputError, match="AZURE_CLOUD=Blue: there is no such cloud"):
        login(azure, disk, AZURE_CLOUD="Blue")


def test_who_is_logged_in_with_az(azure: Azure, disk: Path) -> None:
    azure.arm.tokens["of-az"] = azure.arm.url
    program = disk.parent / "az"
    answer = {"accessToken": "of-az", "expires_on": 4102444800, "subscription": SUBSCRIPTION}
    program.write_text(f"#!/bin/sh\necho \"$@\" >>{disk.parent}/said\necho '{json.dumps(answer)}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    login(azure, disk, PATH=f"{disk.parent}:/bin:/usr/bin", AZURE_SUBSCRIPTION_ID="")
    said = (disk.parent / "said").read_text().splitlines()
    assert said[0] == f"account get-access-token --output json --resource {azure.arm.url}"
    program.write_text("#!/bin/sh\necho 'Please run az login to setup account.' >&2\nexit 1\n")
    with pytest.raises(InputError, match="Please run az login"):
        azure.push(disk)


def test_what_is_signed_with_an_account_s_key() -> None:
    """The example of "Authorize with Shared Key" in Azure's reference."""
    headers = {"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21"}
    url = "https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20"
    assert string_to_sign("GET", url, headers, "myaccount") == (
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )


# -- running


CONSOLE = b"Linux version\nready\nbye\n"


def run(azure: Azure, target: str = "web", **given: Any) -> tuple[bytes, list[str]]:
    shown: list[bytes] = []
    with azure.job("run", output=shown.append, **given) as (job, said):
        runner = azure_place.Run(job, target)
        runner.preflight()
        runner.run()
    return b"".join(shown), said


@pytest.fixture
def image(azure: Azure) -> Azure:
    """An image that is there, and a machine that comes up, writes, and stops."""
    azure.arm.add(azure.image)
    running = [("updating", "running")] * 4
    azure.arm.views = [("creating", ""), ("updating", "starting"), *running, ("succeeded", "stopped")]

    def grow(n: int) -> None:
        azure.arm.console = CONSOLE[: {1: 0, 2: 0, 3: 5, 4: 14}.get(n, len(CONSOLE))]
        if n == 5:
            azure.arm.console_addresses += 1  # the address that is known is no longer good

    azure.arm.on_view = grow
    return azure


def test_a_machine_runs_and_is_removed_with_its_group(image: Azure, tmp_path: Path) -> None:
    key = tmp_path / "id.pub"
    key.write_text("ssh-ed25519 AAAA me\n")
    shown, said = run(image, data=b'{"a": 1}', ssh_key=str(key), disk_size=5, ports="22,80")
    assert shown == CONSOLE
    arm = image.arm
    assert arm.made_order == ["", "networkSecurityGroups", "virtualNetworks", "publicIPAddresses", "networkInterfaces",
                              "virtualMachines"]  # fmt: skip
    (started,) = [line for line in said if line.startswith("started web-")]
    assert started.endswith(", 203.0.113.7")
    assert said[-1].startswith("removed: resource group linuxkit-web-")
    sent = [one.json for one in arm.asked if one.method == "PUT"]
    machine = sent[-1]["properties"]
    assert base64.b64decode(machine["userData"]) == base64.b64decode(machine["osProfile"]["customData"]) == b'{"a": 1}'
    assert machine["storageProfile"]["imageReference"] == {"id": image.image}
    assert machine["storageProfile"]["dataDisks"][0]["diskSizeGB"] == 5
    assert machine["osProfile"]["linuxConfiguration"]["ssh"]["publicKeys"][0]["keyData"] == "ssh-ed25519 AAAA me"
    assert [r["properties"]["destinationPortRange"] for r in sent[1]["properties"]["securityRules"]] == ["22", "80"]
    assert arm.gone_order == [""]  # the group, with all that is in it


def test_single_things_in_a_group_that_is_there_are_removed_in_order(image: Azure) -> None:
    image.arm.group("mine")
    shown, said = run(image, resource_group="mine")
    assert shown == CONSOLE
    kinds = ["virtualMachines", "publicIPAddresses", "virtualNetworks", "networkSecurityGroups"]
    assert image.arm.gone_order == kinds  # the network card goes with the machine
    assert image.arm.kinds() == ["images"]
    assert not any("left behind" in line for line in said)


def test_a_disk_is_pushed_on_the_way(image: Azure, disk: Path) -> None:
    """As LinuxKit's run azure has it."""
    del image.arm.resources[image.image.lower()]
    given = {"resource_group": "images", "storage_account": "images"}
    with pytest.raises(InputError, match="needed and not set: resource-group, storage-account"):
        run(image, str(disk))
    with pytest.raises(InputError, match="the storage account is in westeurope"):
        run(image, str(disk), location="westus", **given)
    shown, said = run(image, str(disk), location="West Europe", **given)
    assert shown == CONSOLE
    assert f"the image is {image.image}, and stays" in said
    assert image.arm.pushed[image.image] == hashlib.sha256(disk.read_bytes()).hexdigest()
    assert image.arm.kinds() == ["images"]


def test_a_quota_that_is_met_on_the_way_leaves_nothing(image: Azure) -> None:
    image.arm.group("mine")
    image.arm.refuses["virtualMachines"] = RefusedError(409, "QuotaExceeded", "cores: 10 of 10")
    with pytest.raises(NetworkError, match="QuotaExceeded: cores: 10 of 10") as caught:
        run(image, resource_group="mine")
    assert "higher quota" in caught.value.hint
    assert image.arm.kinds() == ["images"]


def test_what_passes_is_waited_for(image: Azure) -> None:
    """Azure hears of a new group with delay; a network card stays reserved for a while."""
    image.arm.group("mine")
    late = [b'{"error": {"code": "%s", "message": "not yet"}}' % code for code in (
        b"ResourceGroupNotFound", b"PublicIPAddressCannotBeDeleted", b"Other")]  # fmt: skip
    network = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/mine/providers/Microsoft.Network"
    image.arm.spoil(f"PUT {network}", 404, late[0])
    image.arm.spoil("DELETE ", 400, late[1], after=1, times=3)
    _, said = run(image, resource_group="mine")
    assert (image.arm.kinds(), [line for line in said if "left behind" in line]) == (["images"], [])
    image.arm.views = [("updating", "stopped")]
    image.arm.spoil(f"DELETE {network}/networkSecurityGroups", 400, late[2])
    _, said = run(image, resource_group="mine")
    (line,) = [line for line in said if "left behind" in line]
    assert "security group" in line
    assert "az resource delete --ids /subscriptions/" in line


def test_no_token_goes_elsewhere(azure: Azure, disk: Path) -> None:
    with Strict() as other:
        there = f"{other.url}/subscriptions"
        azure.arm.spoil("/Microsoft.Authorization/permissions", 200,
                        json.dumps({"value": [], "nextLink": there}).encode())  # fmt: skip
        with pytest.raises(HostError, match="names an address that is not its Resource Manager's"):
            azure.push(disk)
        azure.arm.spoil(f"PUT {azure.image}", 202, b"{}", headers={"azure-asyncoperation": there})
        with pytest.raises(HostError, match="names an address that is not its Resource Manager's"):
            azure.push(disk)
        assert other.asked == []


def test_a_machine_that_azure_cannot_make(image: Azure) -> None:
    image.arm.views = [("creating", ""), ("failed/AllocationFailed", "")]
    with pytest.raises(MachineError, match=r"could not make the machine web-.*: AllocationFailed because"):
        run(image)


def test_a_guest_that_says_nothing_to_azure_goes_on(image: Azure) -> None:
    late = "failed/OSProvisioningTimedOut"
    image.arm.views = [("creating", ""), *[(late, "running")] * 4, (late, "stopped")]
    shown, said = run(image)
    assert shown == CONSOLE
    assert sum("has not heard from the guest" in line for line in said) == 1


def test_an_interrupt_removes_what_there_is(image: Azure) -> None:
    image.arm.group("mine")

    def interrupt(data: bytes) -> None:
        raise KeyboardInterrupt

    said: list[str] = []
    for keep in (False, True):
        image.arm.views = [("updating", "running")]
        with pytest.raises(KeyboardInterrupt), image.job(
            "run", resource_group="mine", output=interrupt, keep=keep, name="box") as (job, lines):
            said = lines
            runner = azure_place.Run(job, "web")
            runner.preflight()
            runner.run()
        assert ("virtualMachines" in image.arm.kinds()) == keep
    assert any(line.startswith("kept: machine box; remove it with: az vm delete --yes --ids /subscr") for line in said)


def test_a_dry_run_of_a_machine_makes_nothing(image: Azure) -> None:
    _, said = run(image, dry_run=True, data=b"a secret")
    assert not any(base64.b64encode(b"a secret").decode() in line or "aA1-" in line for line in said)
    assert sum(line.startswith("would send: PUT") for line in said) == 6
    assert image.arm.kinds() == ["images"]


@pytest.mark.parametrize(("target", "given", "says"), [
    ("nothing", {}, "there is no image nothing"),
    ("web", {"machine": "Huge"}, "there is no machine Huge in westeurope"),
    ("web", {"location": "eastus"}, "is in westeurope, not in eastus"),
    ("web", {"name": "web_1"}, "cannot be the name of a machine"),
    ("web", {"ports": "ssh"}, "numbers from 1 to 65535"),
    ("web", {"data": bytes(70000)}, "user data is larger than 64 KB"),
    ("web", {"ssh_key": "/nowhere/key"}, "cannot be read"),
    ("web", {"subnet": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/images/none"}, "there is no subnet"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_made(image: Azure, target: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(image, target, **given)
    assert image.arm.count("PUT") == 0


def test_the_quota_is_looked_at_before(image: Azure) -> None:
    image.arm.cores = [10, 10]
    with pytest.raises(InputError, match="the quota of westeurope is 10 cores: 10 are in use, and Standard_B1s has 1"):
        run(image)
    image.arm.cores = [0, 10]
    image.arm.add(image.image.replace("resourceGroups/images", "resourceGroups/other"))
    with pytest.raises(InputError, match="there are several images web") as caught:
        run(image)
    assert image.image in caught.value.hint


def test_by_the_command_line(image: Azure, disk: Path) -> None:
    environment = image.environment | {"PATH": os.environ["PATH"], "HOME": str(disk.parent)}
    environment |= {k: v for k, v in os.environ.items() if k == "PYTHONPATH"}

    def linuxkit(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=disk.parent, env=environment,
                              capture_output=True, text=True, timeout=120)  # fmt: skip

    done = linuxkit("push", "azure", "web")
    assert (done.returncode, "--resource-group" in done.stderr, "--storage-account" in done.stderr) == (2, True, True)
    done = linuxkit("push", "azure", "--resource-group", "images", "--storage-account", "images", "web",
                    "--img-name", "cli")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == image.image[:-3] + "cli\n"
    assert "linuxkit run azure cli" in done.stderr
    done = linuxkit("run", "azure", "--resourceGroupName", "new", "--data", "x", "cli", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would send: PUT" in done.stderr
