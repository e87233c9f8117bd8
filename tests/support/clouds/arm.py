"""Azure without a cloud: logins, the Resource Manager, and the blob with a machine's console. Strict.

It knows for each kind of resource the api-version, what has to be in it and what may, and what it refers to, which
has to be there; long work takes some polls. Blobs are elsewhere (Azurite): `look_at` fetches one by its address.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from support.clouds.strict import Asked, RefusedError, Reply, Strict, of_json

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "tenant-1"
VERSIONS = {
    "": "2022-09-01", "microsoft.compute": "2024-07-01", "microsoft.compute/galleries": "2023-07-03",
    "microsoft.network": "2024-05-01", "microsoft.storage": "2023-05-01", "microsoft.authorization": "2022-04-01",
}  # fmt: skip
#: What stands in the properties of each kind: needed, and allowed besides.
SHAPES: dict[str, tuple[set[str], set[str]]] = {
    "images": ({"hyperVGeneration", "storageProfile"}, set()),
    "galleries/images": ({"osType", "osState", "hyperVGeneration", "architecture", "identifier"}, set()),
    "galleries/images/versions": ({"publishingProfile", "storageProfile"}, set()),
    "networkSecurityGroups": ({"securityRules"}, set()),
    "virtualNetworks": ({"addressSpace", "subnets"}, set()),
    "publicIPAddresses": ({"publicIPAllocationMethod"}, set()),
    "networkInterfaces": ({"ipConfigurations"}, {"networkSecurityGroup"}),
    "virtualMachines": ({"hardwareProfile", "storageProfile", "osProfile", "networkProfile", "diagnosticsProfile"},
                        {"userData"}),
}  # fmt: skip


class ArmFake(Strict):
    def __init__(self, look_at: Callable[[str], bytes | None] = lambda url: None) -> None:
        super().__init__()
        self.look_at = look_at
        self.numbers = itertools.count(1)
        self.tokens: dict[str, str] = {}  # token → what it is for
        self.secret = "geheim"
        self.assertions: list[str] = []
        self.granted: list[dict[str, list[str]]] = [{"actions": ["*"], "notActions": []}]
        self.resources: dict[str, dict[str, Any]] = {}  # by path, in lower case
        self.work: dict[str, list[Any]] = {}  # operation → [polls that are left, what is done then, error]
        self.polls = 2  # that something takes
        self.fails: dict[str, tuple[str, str]] = {}  # kind → code and message of the work that fails
        self.refuses: dict[str, RefusedError] = {}  # kind → the answer to PUT
        self.cores = [0, 10]
        self.keys_allowed = True
        self.key = ""
        self.pushed: dict[str, str] = {}  # path → SHA-256 of the blob that was there
        self.console = b""
        self.console_addresses = 0  # which one is good
        self.views: list[tuple[str, str]] = []  # (provisioning, power) of the machine, one after the other
        self.on_view: Callable[[int], None] = lambda n: None
        self.seen_views = 0
        self.made_order: list[str] = []
        self.gone_order: list[str] = []

    # -- what a test sets up

    def group(self, name: str, location: str = "westeurope") -> str:
        path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}"
        self.resources[path.lower()] = {"id": path, "name": name, "location": location, "properties": {}}
        return path

    def account(self, group: str, name: str, endpoint: str, key: str, **more: Any) -> str:
        path = f"{self.group(group)}/providers/Microsoft.Storage/storageAccounts/{name}"
        self.key = key
        self.resources[path.lower()] = {
            "id": path, "name": name, "location": "westeurope", "kind": more.pop("kind", "StorageV2"),
            "properties": {"primaryEndpoints": {"blob": f"{endpoint}/"}, **more},
        }  # fmt: skip
        return path

    def add(self, path: str, **more: Any) -> str:
        self.resources[path.lower()] = {"id": path, "name": path.rpartition("/")[2], "location": "westeurope",
                                        "properties": {"provisioningState": "Succeeded"}, **more}  # fmt: skip
        return path

    def expire(self) -> None:
        """No token is good any more."""
        self.tokens.clear()

    def kinds(self) -> list[str]:
        """Of what is there, without groups and accounts."""
        return sorted(_kind(one["id"]) for one in self.resources.values()
                      if _kind(one["id"]) not in ("", "storageAccounts", "galleries"))  # fmt: skip

    # -- requests

    def error(self, refused: RefusedError) -> Reply:
        return of_json(refused.status, {"error": {"code": refused.code, "message": refused.message}})

    def reply(self, asked: Asked) -> Reply:
        if asked.path.endswith("/oauth2/v2.0/token"):
            return self._login(asked)
        if asked.path == "/metadata/identity/oauth2/token":
            return self._identity(asked)
        if asked.path == "/msi/token":
            if (asked.headers.get("x-identity-header"), asked.query["api-version"]) != ("header", "2019-08-01"):
                return of_json(401, {"error": "invalid", "error_description": "not this one"})
            return self._token(asked.query["resource"])
        if asked.path == "/console.log":
            return self._console(asked)
        kind, _, token = asked.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or self.tokens.get(token) != self.url:
            raise RefusedError(401, "ExpiredAuthenticationToken", "The access token expiry is in the past.")
        if asked.path.startswith("/operations/"):
            return self._operation(asked)
        provider = asked.path.rpartition("/providers/")[2].lower() if "/providers/" in asked.path else ""
        best = max((name for name in VERSIONS if provider.startswith(name)), key=len)
        if asked.query.get("api-version") != VERSIONS[best]:
            self.wrongs.append(f"{asked.method} {asked.path}: api-version {asked.query.get('api-version')}")
            raise RefusedError(400, "InvalidApiVersionParameter", "no")
        if not asked.path.startswith(f"/subscriptions/{SUBSCRIPTION}"):
            raise RefusedError(404, "SubscriptionNotFound", "The subscription could not be found.")
        return {"GET": self._get, "PUT": self._put, "DELETE": self._delete, "POST": self._post}[asked.method](asked)

    def _token(self, resource: str) -> Reply:
        token = f"token-{next(self.numbers)}"
        if resource.startswith("https://storage"):  # Azurite looks into it, though not at the signature
            now = int(time.time())
            claims = {"aud": resource, "iss": "https://sts.windows.net/tenant-1/", "nbf": now - 60, "iat": now - 60,
                      "exp": now + 3600, "oid": token}  # fmt: skip
            parts = ({"alg": "RS256", "typ": "JWT"}, claims)
            token = ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
                                for part in parts), "c2lnbmF0dXJl"])  # fmt: skip
        self.tokens[token] = resource
        return of_json(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _login(self, asked: Asked) -> Reply:
        form = dict(parse_qsl(asked.body.decode()))
        if asked.path != f"/{TENANT}/oauth2/v2.0/token" or form["grant_type"] != "client_credentials":
            return of_json(400, {"error": "invalid_request", "error_description": "AADSTS90002: Tenant not found."})
        resource = form["scope"].removesuffix("/.default")
        if resource not in (self.url, "https://storage.azure.com"):
            self.wrongs.append(f"scope {form['scope']}")
        if "client_assertion" in form:
            assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            self.assertions.append(form["client_assertion"])
        elif form["client_id"] != "app" or form["client_secret"] != self.secret:
            return of_json(401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid secret."})
        return self._token(resource)

    def _identity(self, asked: Asked) -> Reply:
        if asked.headers.get("metadata") != "true" or asked.query["api-version"] != "2018-02-01":
            return of_json(400, {"error": "invalid_request", "error_description": "Required metadata header missing"})
        return self._token(asked.query["resource"])

    def _get(self, asked: Asked) -> Reply:
        path = asked.path.lower()
        if path.endswith("/providers/microsoft.authorization/permissions"):
            return of_json(200, {"value": self.granted})
        if path.endswith("/vmsizes"):
            return of_json(200, {"value": [{"name": "Standard_B1s", "numberOfCores": 1, "memoryInMB": 1024}]})
        if path.endswith("/usages"):
            return of_json(200, {"value": [{"name": {"value": "availabilitySets"}, "currentValue": 0, "limit": 1}, {
                "name": {"value": "cores"}, "currentValue": self.cores[0], "limit": self.cores[1]}]})  # fmt: skip
        if path.endswith("/instanceview"):
            return self._view(path.removesuffix("/instanceview"))
        if path in self.resources:
            return of_json(200, self.resources[path])
        if re.fullmatch(r".*/providers/[a-z.]+/[a-z]+|.*/versions", path):
            group, _, kind = path.partition("/providers/")
            found = [one for name, one in self.resources.items()
                     if (name.startswith(f"{group}/") and f"/providers/{kind}/" in name
                         and "/" not in name.partition(f"/providers/{kind}/")[2])]  # fmt: skip
            at = int(asked.query.get("$skiptoken", "0"))  # one a page
            more = f"{self.url}{asked.path}?api-version={asked.query['api-version']}&$skiptoken={at + 1}"
            return of_json(200, {"value": found[at : at + 1], **({"nextLink": more} if at + 1 < len(found) else {})})
        raise RefusedError(404, "ResourceNotFound" if "/providers/" in path else "ResourceGroupNotFound", "no")

    def _put(self, asked: Asked) -> Reply:
        path, kind, body = asked.path.lower(), _kind(asked.path), asked.json
        if asked.headers.get("content-type") != "application/json":
            self.wrongs.append(f"PUT {asked.path}: content type")
        group = path.partition("/providers/")[0]
        if kind and group not in self.resources:
            raise RefusedError(404, "ResourceGroupNotFound", "no")
        if kind in self.refuses:
            raise self.refuses[kind]
        try:
            self._check(kind, asked.path, body)
        except (AssertionError, KeyError) as e:
            self.wrongs.append(f"PUT {kind}: {type(e).__name__} {e} in {body}")
            raise RefusedError(400, "InvalidParameter", str(e)) from None
        made = {"id": asked.path, "name": asked.path.rpartition("/")[2], "tags": body.get("tags", {}),
                "location": body["location"],
                "properties": {**body.get("properties", {}), "provisioningState": "Creating"}}  # fmt: skip
        before = path in self.resources
        self.resources[path] = made
        self.made_order.append(kind)
        if not kind:
            made["properties"]["provisioningState"] = "Succeeded"
            return of_json(201, made)

        def done() -> None:
            failed = kind in self.fails
            made["properties"]["provisioningState"] = "Failed" if failed else "Succeeded"
            if kind == "publicIPAddresses":
                made["properties"]["ipAddress"] = "203.0.113.7"

        if kind == "networkInterfaces":  # no address of its own: the resource tells
            done()
            return of_json(201, made)
        status, headers, data = of_json(200 if before else 201, made)
        return status, {**headers, **self._begin(done, self.fails.get(kind))}, data

    def _begin(self, done: Callable[[], None], fails: tuple[str, str] | None = None) -> dict[str, str]:
        """Work that takes some polls."""
        name = f"/operations/{next(self.numbers)}"
        self.work[name] = [self.polls, done, fails]
        return {"azure-asyncoperation": f"{self.url}{name}?api-version=2024-07-01&t=1", "retry-after": "1"}

    def _operation(self, asked: Asked) -> Reply:
        work = self.work[asked.path]
        work[0] -= 1
        if work[0] > 0:
            if asked.query.get("kind") == "location":
                return 202, {"location": f"{self.url}{asked.path}?kind=location"}, b""
            return of_json(200, {"status": "InProgress"})
        if work[0] == 0:
            work[1]()
        if asked.query.get("kind") == "location":
            return 200, {}, b""
        if work[2]:
            outer = {"code": "DeploymentFailed", "message": "At least one operation failed.", "details": [
                {"code": work[2][0], "message": work[2][1]}]}  # fmt: skip
            return of_json(200, {"status": "Failed", "error": outer})
        return of_json(200, {"status": "Succeeded"})

    def _delete(self, asked: Asked) -> Reply:
        path, kind = asked.path.lower(), _kind(asked.path)
        if path not in self.resources:
            return 204, {}, b""
        for other, one in self.resources.items():
            if kind and not other.startswith(path) and path in str(one["properties"]).lower():
                self.wrongs.append(f"DELETE {kind}, which {_kind(one['id'])} uses")
                raise RefusedError(409, "InUse", f"{other} uses it")
        self.gone_order.append(kind)

        def done() -> None:
            inside = {name for name in self.resources if name == path or name.startswith(f"{path}/")}
            if kind == "virtualMachines":
                cards = self.resources[path]["properties"]["networkProfile"]["networkInterfaces"]
                inside |= {one["id"].lower() for one in cards if one["properties"].get("deleteOption") == "Delete"}
            for name in inside:
                self.resources.pop(name, None)

        location = next(iter(self._begin(done).values())).partition("?")[0]
        return 202, {"location": f"{location}?kind=location"}, b""

    def _post(self, asked: Asked) -> Reply:
        path = asked.path.lower()
        if path.endswith("/listkeys"):
            if not self.keys_allowed:
                raise RefusedError(403, "AuthorizationFailed", "no action listKeys")
            return of_json(200, {"keys": [{"keyName": "key1", "value": self.key, "permissions": "FULL"}]})
        assert path.endswith("/retrievebootdiagnosticsdata"), path
        if not self.console:
            raise RefusedError(409, "BootDiagnosticsNotReady", "no")
        self.console_addresses += 1
        return of_json(200, {"serialConsoleLogBlobUri": f"{self.url}/console.log?sig={self.console_addresses}"})

    def _console(self, asked: Asked) -> Reply:
        if "authorization" in asked.headers:
            self.wrongs.append("a token for the console's blob")
        if asked.query["sig"] != str(self.console_addresses):
            return 403, {}, b"<Error><Code>AuthenticationFailed</Code></Error>"
        start = int(re.fullmatch(r"bytes=(\d+)-", asked.headers["range"])[1])  # type: ignore[index]
        size = len(self.console)
        if start >= size:
            return 416, {"content-range": f"bytes */{size}"}, b""
        return 206, {"content-range": f"bytes {start}-{size - 1}/{size}"}, self.console[start:]

    def _view(self, path: str) -> Reply:
        if path not in self.resources:
            raise RefusedError(404, "ResourceNotFound", "no")
        self.seen_views += 1
        self.on_view(self.seen_views)
        provisioning, power = self.views[0] if len(self.views) == 1 else self.views.pop(0)
        statuses = [{"code": f"ProvisioningState/{provisioning}", "message": "because"}]
        return of_json(200, {"statuses": statuses + ([{"code": f"PowerState/{power}"}] if power else [])})

    # -- what has to be in a resource

    def _check(self, kind: str, path: str, body: Mapping[str, Any]) -> None:
        assert body["location"], "no location"
        assert set(body) <= {"location", "tags", "properties", "sku"}, sorted(body)
        if not kind:
            return
        properties = body["properties"]
        needed, more = SHAPES[kind]
        assert needed <= set(properties) <= needed | more, f"{sorted(properties)}"
        for name in re.findall(r"'id': '([^']+)'", str(properties)):
            bare = name.partition("/subnets/")[0]
            assert bare.lower() in self.resources, f"there is no {name}"
        check = getattr(self, "_check_" + kind.rpartition("/")[2], None)
        if check is not None:
            check(path, properties)
        if kind == "publicIPAddresses":
            assert body["sku"] == {"name": "Standard"}
        if kind.startswith("galleries/"):
            assert path.lower().rpartition("/")[0].rpartition("/")[0] in self.resources, "its parent is missing"

    def _blob(self, path: str, url: str) -> None:
        data = self.look_at(url)
        assert data is not None, f"there is no blob {url}"
        self.pushed[path] = hashlib.sha256(data).hexdigest()

    def _check_images(self, path: str, properties: Mapping[str, Any]) -> None:
        assert properties["hyperVGeneration"] in ("V1", "V2")
        if "/galleries/" in path:
            assert set(properties["identifier"]) == {"publisher", "offer", "sku"}
            return
        disk = properties["storageProfile"]["osDisk"]
        assert (disk["osType"], disk["osState"]) == ("Linux", "Generalized")
        self._blob(path, disk["blobUri"])

    def _check_versions(self, path: str, properties: Mapping[str, Any]) -> None:
        source = properties["storageProfile"]["osDiskImage"]["source"]
        assert source["storageAccountId"].lower() in self.resources
        assert properties["publishingProfile"]["targetRegions"][0]["name"]
        self._blob(path, source["uri"])

    def _check_virtualMachines(self, path: str, properties: Mapping[str, Any]) -> None:
        login = properties["osProfile"]
        linux = login["linuxConfiguration"]
        assert linux["disablePasswordAuthentication"] == ("ssh" in linux) != ("adminPassword" in login)
        assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", login["computerName"])
        assert properties["storageProfile"]["osDisk"]["createOption"] == "FromImage"
        assert properties["diagnosticsProfile"] == {"bootDiagnostics": {"enabled": True}}
        for data in (login.get("customData"), properties.get("userData")):
            assert data is None or base64.b64decode(data, validate=True)


def _kind(path: str) -> str:
    """`images`, `galleries/images/versions`, …; empty for a resource group."""
    if "/providers/" not in path:
        return ""
    return "/".join(path.rpartition("/providers/")[2].split("/")[1::2])


def blob_of(url: str) -> tuple[str, str]:
    """Container and name in an address of Azurite: /account/container/name."""
    container, _, name = urlsplit(url).path.lstrip("/").partition("/")[2].partition("/")
    return container, name
