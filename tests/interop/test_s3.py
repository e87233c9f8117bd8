"""Files to a bucket of S3: moto behind a door that checks every signature with botocore; failures put in on the way."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from linuxkit.clouds import s3, s3_api
from linuxkit.errors import InputError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, settle
from support.clouds.moto import serve
from support.clouds.proxy import Proxy, _Handler

pytestmark = pytest.mark.interop
REGION = "eu-central-1"


class Door(_Handler):
    """Lets through what is signed rightly."""

    def _pass(self, body: bytes) -> None:
        said = self.headers.get("authorization", "")
        names = said.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        headers = {name: self.headers[name] for name in names}
        request = AWSRequest(self.command, f"http://{self.headers['host']}{self.path}", headers, body)
        request.context["timestamp"] = headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials("key", "secret"), "s3", REGION)
        signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        assert "host" in names and "x-amz-content-sha256" in names
        if not said.endswith(f"Signature={signature}"):
            return self._reply(403, b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>", {})
        return super()._pass(body)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def server(moto: str) -> Iterator[Proxy]:
    """S3 with one empty bucket, images."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()
    with Proxy(moto) as proxy:
        proxy.RequestHandlerClass = Door
        client(proxy).create_bucket(Bucket="images", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield proxy


def client(server: Proxy) -> Any:
    return boto3.client("s3", region_name=REGION, endpoint_url=server.target, aws_access_key_id="key",
                        aws_secret_access_key="secret")  # fmt: skip


def content(server: Proxy, key: str) -> bytes:
    return bytes(client(server).get_object(Bucket="images", Key=key)["Body"].read())


def halves(server: Proxy) -> list[Any]:
    return list(client(server).list_multipart_uploads(Bucket="images").get("Uploads", []))


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three parts: the smallest that S3 takes, and a bit."""
    monkeypatch.setattr(s3_api, "PART", 5 << 20)
    (tmp_path / "large.bin").write_bytes(random.Random(1).randbytes(5 << 20) * 2 + b"end")
    return tmp_path / "large.bin"


def push(server: Proxy, path: Path, **given: Any) -> tuple[list[str], str]:
    said: list[str] = []
    keep = given.pop("keep", False)
    environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": given.pop("secret", "secret")}
    settings = settle(s3.PUSH_SETTINGS, {"bucket": "images", "endpoint": server.url, "region": REGION} | given, {})
    with Journal(said.append, keep=keep) as journal:
        work = Job(settings, environment, Transport(sleep=lambda s: None), journal, said.append, sleep=lambda s: None)
        pusher = s3.Push(work, LocalImage(path, ""))
        pusher.preflight()
        pushed = pusher.push()
    return said, pushed.identity + (" there before" if pushed.there_before else "")


def test_a_file_goes_up_once(server: Proxy, tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(b"disk")
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": server.url, "AWS_BUCKET": "images"}  # fmt: skip

    def linuxkit(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "linuxkit", "push", "s3", *args], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=60)  # fmt: skip

    done = linuxkit("--dry-run", "web")
    assert (done.returncode, "would send: PUT" in done.stderr, server.count("PUT")) == (0, True, 0), done.stderr
    done = linuxkit("web")
    assert (done.returncode, done.stdout) == (0, "s3://images/web.img\n"), done.stderr
    assert content(server, "web.img") == b"disk"
    done = linuxkit("web")
    assert (done.returncode, "is there already" in done.stderr, server.count("PUT")) == (0, True, 1)
    (tmp_path / "web.img").write_bytes(b"other")
    said, identity = push(server, tmp_path / "web.img", key="a b/", public=True)
    assert identity == f"{server.url}/images/a b/web.img"
    grants = client(server).get_object_acl(Bucket="images", Key="a b/web.img")["Grants"]
    assert any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)
    assert said == []


def test_a_large_file_goes_up_in_parts(server: Proxy, large: Path) -> None:
    server.spoil("partNumber=2", 500)
    server.spoil("partNumber=1", 429, headers={"retry-after": "0"})
    server.cut("partNumber=3")
    server.spoil("uploads=", 503)
    server.spoil("<CompleteMultipartUpload>", 200, b"<Error><Code>InternalError</Code></Error>")
    said, _ = push(server, large, keep=True)
    assert said == []
    assert content(server, "large.bin") == large.read_bytes()
    assert all(rule.times == 0 for rule in server.rules)
    sent = server.count("PUT")
    assert push(server, large)[1] == "s3://images/large.bin there before"
    assert server.count("PUT") == sent


def test_a_lost_answer_to_the_last_call(server: Proxy, large: Path) -> None:
    """The parts were put together, and that it was done is not known: the object itself tells."""
    answered = []

    def complete(body: bytes) -> tuple[int, bytes]:
        if answered:
            return 404, b"<Error><Code>NoSuchUpload</Code></Error>"
        answered.append(1)
        boto = client(server)
        (upload,) = halves(server)
        parts = boto.list_parts(Bucket="images", Key="large.bin", UploadId=upload["UploadId"])["Parts"]
        boto.complete_multipart_upload(
            Bucket="images", Key="large.bin", UploadId=upload["UploadId"],
            MultipartUpload={"Parts": [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in parts]})  # fmt: skip
        return 500, b""

    server.answer("<CompleteMultipartUpload>", complete)
    push(server, large)
    assert content(server, "large.bin") == large.read_bytes()


@pytest.mark.parametrize(("where", "status"), [("partNumber=2", 403), ("<CompleteMultipartUpload>", 400)])
def test_a_failure_half_way_leaves_nothing(server: Proxy, large: Path, where: str, status: int) -> None:
    client(server).put_object(Bucket="images", Key="large.bin", Body=b"old")
    server.spoil(where, status, b"<Error><Code>No</Code><Message>no</Message></Error>")
    with pytest.raises(NetworkError, match="No: no"):
        push(server, large)
    assert server.count("DELETE", "uploadId=") == 1
    assert halves(server) == []
    assert content(server, "large.bin") == b"old"


def test_a_push_that_is_ended_removes_what_it_sent(server: Proxy, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(random.Random(1).randbytes(1 << 20) * 17)
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}  # fmt: skip
    command = [sys.executable, "-m", "linuxkit", "push", "s3", "--bucket", "images", "--endpoint", server.url,
               "--region", REGION, "large.bin"]  # fmt: skip
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as pushing:

        def end(body: bytes) -> tuple[int, bytes]:
            pushing.terminate()
            return 500, b""

        server.answer("partNumber=2", end)
        said = pushing.communicate(timeout=60)[1]
    assert pushing.returncode == 130, said
    assert "removed: half an upload of s3://images/large.bin" in said
    assert halves(server) == []


def test_bad_input_is_said_before_anything_is_sent(server: Proxy, large: Path) -> None:
    with pytest.raises(InputError, match="there is no bucket none"):
        push(server, large, bucket="none")
    with pytest.raises(NetworkError, match="SignatureDoesNotMatch") as caught:
        push(server, large, secret="wrong")
    assert caught.value.hint == "the secret key is not the one of this access key"
    server.spoil("GET /images?", 400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>",
                 headers={"x-amz-bucket-region": "eu-west-3"})  # fmt: skip
    with pytest.raises(InputError, match=f"the bucket images is not in {REGION}, but in eu-west-3") as wrong:
        push(server, large)
    assert wrong.value.hint == "--region eu-west-3"
    with pytest.raises(InputError, match="is not an http or https URL"):
        push(server, large, endpoint="minio.example")
    assert server.count("PUT") == 0
    server.spoil("GET /images?", 403, b"<Error><Code>AccessDenied</Code></Error>")  # it may not be listed: go on
    push(server, large)
