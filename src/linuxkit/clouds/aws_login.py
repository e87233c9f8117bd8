"""AWS credentials and region from where AWS' own tools keep them.

    environment            AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    web identity           AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN (CI systems, Kubernetes)
    profile                ~/.aws/credentials and ~/.aws/config, AWS_PROFILE: keys,
                           credential_process, role_arn with source_profile
    container, instance    AWS_CONTAINER_CREDENTIALS_*, the metadata service of EC2 (IMDSv2)

Single sign-on (`sso_session`) is botocore's: used when that is installed.
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from linuxkit import host
from linuxkit.errors import InputError, NetworkError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import Transport
from linuxkit.places.rest import Call
from linuxkit.places.sigv4 import Credentials, SigV4

METADATA = "http://169.254.169.254"
MAX = 1 << 20


class Login:
    """Looks for credentials; each call of it looks anew, so that what expired is renewed."""

    def __init__(self, environment: Mapping[str, str], transport: Transport) -> None:
        self._environment, self._transport = environment, transport
        home = Path(environment.get("HOME") or Path.home())
        self._files = [
            Path(environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config"),
            Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials"),
        ]

    @property
    def profile(self) -> str:
        return self._environment.get("AWS_PROFILE") or self._environment.get("AWS_DEFAULT_PROFILE") or "default"

    def region(self) -> str:
        """From AWS_REGION, AWS_DEFAULT_REGION or the profile; empty when none says."""
        found = self._environment.get("AWS_REGION") or self._environment.get("AWS_DEFAULT_REGION")
        return found or self._section(self.profile).get("region", "")

    def endpoint(self, service: str, region: str) -> str:
        """The address of a service: AWS' own, or what AWS_ENDPOINT_URL[_SERVICE] says."""
        own = self._environment.get(f"AWS_ENDPOINT_URL_{service.upper()}") or self._environment.get("AWS_ENDPOINT_URL")
        ending = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return (own or f"https://{service}.{region}.{ending}").rstrip("/")

    def __call__(self) -> Credentials:
        """The first credentials that are found.

        Raises:
            InputError: none are.
        """
        env = self._environment
        if env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
            return Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"],
                               env.get("AWS_SESSION_TOKEN", ""), "AWS_ACCESS_KEY_ID")  # fmt: skip
        found = self._web_identity() or self._profile(self.profile, 3) or self._container() or self._instance()
        if found is None:
            raise InputError("no AWS credentials were found", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                             f"or AWS_PROFILE, or run aws configure; {self._files[1]} was looked at")  # fmt: skip
        return found

    def _section(self, profile: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for path, name in zip(self._files, (profile if profile == "default" else f"profile {profile}", profile),
                              strict=True):  # fmt: skip
            parser = configparser.RawConfigParser()
            try:
                with path.open(encoding="utf-8") as stream:
                    parser.read_string(stream.read(MAX))
            except OSError:
                continue
            except (configparser.Error, UnicodeDecodeError) as e:
                raise InputError(f"{path} cannot be read: {str(e).splitlines()[0]}") from e
            if parser.has_section(name):
                found |= dict(parser.items(name))
        return found

    def _profile(self, profile: str, depth: int) -> Credentials | None:
        section = self._section(profile)
        where = f"profile {profile} of {self._files[1]}"
        if section.get("role_arn") and depth:
            source = self._profile(section.get("source_profile", "default"), depth - 1) \
                if section.get("source_profile") != profile else _keys(section, where)  # fmt: skip
            if source is None:
                raise InputError(f"profile {profile} takes a role, and its source_profile has no keys")
            query = {"RoleArn": section["role_arn"], "RoleSessionName": section.get("role_session_name", "linuxkit")}
            query |= {"ExternalId": section["external_id"]} if section.get("external_id") else {}
            return self._assume("AssumeRole", query, source, where)
        if found := _keys(section, where):
            return found
        if section.get("credential_process"):
            done = host.run(shlex.split(section["credential_process"]), timeout=60)
            made = read_json(done.stdout)
            return Credentials(made["AccessKeyId"], made["SecretAccessKey"], made.get("SessionToken", ""), where)
        return self._single_sign_on(profile, where) if "sso_session" in section or "sso_start_url" in section else None

    def _single_sign_on(self, profile: str, where: str) -> Credentials:
        try:
            import botocore.session  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise InputError(f"{where} uses single sign-on, which needs botocore",
                             hint="pip install 'linuxkit[aws]'; or "
                             "eval \"$(aws configure export-credentials --format env)\"") from None  # fmt: skip
        keys = botocore.session.Session(profile=profile).get_credentials()
        frozen = keys.get_frozen_credentials() if keys is not None else None
        if frozen is None:
            raise InputError(f"{where}: single sign-on gave no keys", hint="aws sso login")
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "", where)

    def _web_identity(self) -> Credentials | None:
        file, role = self._environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"), self._environment.get("AWS_ROLE_ARN")
        if not file or not role:
            return None
        try:
            token = Path(file).read_text().strip()
        except OSError as e:
            raise InputError(f"AWS_WEB_IDENTITY_TOKEN_FILE {file}: {e.strerror}") from e
        query = {"RoleArn": role, "WebIdentityToken": token,
                 "RoleSessionName": self._environment.get("AWS_ROLE_SESSION_NAME") or "linuxkit"}  # fmt: skip
        return self._assume("AssumeRoleWithWebIdentity", query, None, "AWS_WEB_IDENTITY_TOKEN_FILE")

    def _assume(self, action: str, query: dict[str, str], keys: Credentials | None, where: str) -> Credentials:
        region = self.region() or "us-east-1"
        url = self.endpoint("sts", region) + "/"
        body = urlencode({"Action": action, "Version": "2011-06-15", **query}).encode()
        headers: Mapping[str, str] = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        if keys is not None:
            headers = SigV4(lambda: keys, region, "sts").sign(Call("POST", url, headers, body))
        with self._transport.request("POST", url, headers, body=body) as response:
            answer = response.read(MAX)
        names = {e.tag.rpartition("}")[2]: e.text or "" for e in _xml(answer).iter()}
        if response.status != 200 or "SecretAccessKey" not in names:
            raise InputError(f"the role {query['RoleArn']} was not given ({where}): {names.get('Message', '')}")
        return Credentials(names["AccessKeyId"], names["SecretAccessKey"], names.get("SessionToken", ""), where)

    def _container(self) -> Credentials | None:
        relative = self._environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        full = f"http://169.254.170.2{relative}" if relative else \
            self._environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
        if not full:
            return None
        token = self._environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        with self._transport.get(full, {"Authorization": token} if token else {}) as response:
            return _of_json(read_json(response.read(MAX)), "the container's role")

    def _instance(self) -> Credentials | None:
        """Of a machine in EC2; asked only where the machine says that it is one, so that nobody waits elsewhere."""
        vendor = Path("/sys/class/dmi/id/sys_vendor")
        if self._environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" or not vendor.exists() \
                or "Amazon EC2" not in vendor.read_text():  # fmt: skip
            return None
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        try:
            with self._transport.request("PUT", f"{METADATA}/latest/api/token", headers, attempts=1) as response:
                token = {"X-aws-ec2-metadata-token": response.read(MAX).decode()}
            base = f"{METADATA}/latest/meta-data/iam/security-credentials/"
            with self._transport.get(base, token) as response:
                role = response.read(MAX).decode().split()[0]
            with self._transport.get(base + role, token) as response:
                return _of_json(read_json(response.read(MAX)), "the instance's role")
        except (NetworkError, IndexError, ValueError):
            return None


def _keys(section: Mapping[str, str], where: str) -> Credentials | None:
    if not section.get("aws_access_key_id") or not section.get("aws_secret_access_key"):
        return None
    return Credentials(section["aws_access_key_id"], section["aws_secret_access_key"],
                       section.get("aws_session_token", ""), where)  # fmt: skip


def _of_json(made: Any, where: str) -> Credentials:
    return Credentials(made["AccessKeyId"], made["SecretAccessKey"], made.get("Token", ""), where)


def _xml(data: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return ElementTree.Element("none")
