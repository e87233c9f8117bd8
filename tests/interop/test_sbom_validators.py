"""Our documents judged by the validators of their formats; package managers' own databases read by us.

spdx-tools and cyclonedx-python-lib are the reference implementations of SPDX and CycloneDX, packageurl-python that of
package URLs. rpm and dpkg make or list the databases. The validators run in a process of their own: they warn.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from linuxkit.oci.media import Image
from linuxkit.oci.store import Store
from linuxkit.sbom import dpkg, kit, rpm
from linuxkit.sbom.make import document, encode
from support.builds import YAML, linuxkit, make_cache
from support.databases import APK, BASH_RPM, DPKG, attest, content_of, image_with, rpmdb
from support.peers import docker_registry, tool

pytestmark = pytest.mark.interop

SPDX = """
import sys
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
document = parse_file(sys.argv[1])
problems = validate_full_spdx_document(document, "SPDX-2.3")
for problem in problems:
    print(problem.validation_message, problem.context.spdx_id)
print(len(document.packages), len(document.relationships), "packages and relationships")
sys.exit(bool(problems))
"""
CYCLONEDX = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1], encoding="utf-8").read())
print(problem)
import json
from cyclonedx.model.bom import Bom
bom = Bom.from_json(json.load(open(sys.argv[1], encoding="utf-8")))
bom.validate()
sys.exit(problem is not None)
"""
PURLS = """
import json, sys
from packageurl import PackageURL
for text in json.load(open(sys.argv[1])):
    assert PackageURL.from_string(text).to_string() == text, (text, PackageURL.from_string(text).to_string())
"""
INTOTO = """
import sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
message = json_format.Parse(open(sys.argv[1]).read(), Message())  # refuses fields that the specification lacks
Statement.copy_from_pb(message).validate()
assert message.predicate_type == "https://slsa.dev/provenance/v1"
predicate = json_format.ParseDict(json_format.MessageToDict(message.predicate), Provenance())
for one in predicate.build_definition.resolved_dependencies:
    ResourceDescriptor.copy_from_pb(one).validate()
assert predicate.build_definition.build_type and predicate.run_details.builder.id
"""


def judge(program: str, path: Path, good: bool = True) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, path], capture_output=True, text=True)
    assert (done.returncode == 0) == good, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


ATTESTED: dict[str, Any] = {
    "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "app", "dataLicense": "CC0-1.0",
    "documentNamespace": "https://example.com/app",
    "creationInfo": {"creators": ["Tool: x"], "created": "2026-01-01T00:00:00Z"},
    "packages": [{
        "SPDXID": "SPDXRef-Package-go", "name": "example.com/mod", "versionInfo": "v1", "filesAnalyzed": False,
        "downloadLocation": "NOASSERTION", "licenseDeclared": "LicenseRef-own AND MIT", "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
             "referenceLocator": "pkg:golang/example.com/mod@v1"}],
    }],
    "files": [{"SPDXID": "SPDXRef-File-1", "fileName": "./bin/app", "licenseConcluded": "LicenseRef-own",
               "checksums": [{"algorithm": "SHA1", "checksumValue": "a" * 40}]}],
    "hasExtractedLicensingInfos": [{"licenseId": "LicenseRef-own", "extractedText": "do as you like"}],
    "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
         "relatedSpdxElement": "SPDXRef-Package-go"},
        {"spdxElementId": "SPDXRef-Package-go", "relationshipType": "OTHER", "relatedSpdxElement": "SPDXRef-File-1"},
    ],
}  # fmt: skip
ODD = b"""\
Package: odd++
Version: 2:1.0~rc1+b^2%3
Architecture: any
Maintainer: "Someone (at) Home" <someone@example.org>
Homepage: gopher://example.com/

Package: other
Version: 1
Maintainer: no mail at all
Homepage: https://example.com/?q=a b

Package: third
Version: 1
Maintainer: <only@example.org>
Source: src (1:2-3)
"""
LICENCES = b"".join(
    b"P:l%d\nV:1-r0\nL:%s\n\n" % (n, text) for n, text in enumerate((
        b"MIT", b"GPL-2.0-or-later AND (MIT OR BSD-2-Clause)", b"GPL2 LGPL2+", b"Apache-2.0+", b"custom:x", b"a WITH x",
        b"GPL-2.0-only WITH Linux-syscall-note", b"((", b"LicenseRef-foo_bar", b"caf\xc3\xa9", b"public-domain", b"a/b",
    ))
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[tuple[str, Image]]]:
    store = Store(tmp_path_factory.mktemp("images") / "cache")
    copyright = b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: GPL-2+ or X\n"
    labels = {kit.PACKAGES: "nginx=1.26.3-3+deb13u1 libc6=2.41-12", kit.DIGESTS: f"nginx={'a' * 64}"}
    made = [
        image_with(store, "registry.example:5000/t/deb:1", {
            "var/lib/dpkg/status": DPKG, "var/lib/dpkg/status.d/odd": ODD, "usr/share/doc/bash/copyright": copyright,
            "etc/os-release": b"ID=debian\nVERSION_ID=12\n"}),
        image_with(store, "docker.io/t/apk:1", {"lib/apk/db/installed": APK + b"\n" + LICENCES}),
        image_with(store, "docker.io/t/rpm:1", {"usr/lib/sysimage/rpm/rpmdb.sqlite": rpmdb(BASH_RPM),
                                                "var/lib/rpm/Packages": b"x"}),
        image_with(store, "linuxkit.kit/nginx:0", {"a": b"a"}, labels=labels),
        attest(store, image_with(store, "docker.io/t/app:1", {"a": b"a"}), ("https://spdx.dev/Document", ATTESTED)),
    ]  # fmt: skip
    return store, [(f"containers/services/s{n}/lower" if n else "", image) for n, image in enumerate([*made, made[-1]])]


def test_spdx_and_cyclonedx_are_valid(images: tuple[Store, list[tuple[str, Image]]], tmp_path: Path) -> None:
    store, listed = images
    content = content_of(store, tmp_path)
    spdx, cyclonedx = tmp_path / "sbom.spdx.json", tmp_path / "sbom.cdx.json"
    spdx.write_bytes(encode(document(listed, content)))
    cyclonedx.write_bytes(encode(document(listed, content, format="cyclonedx")))
    count = int(judge(SPDX, spdx).split()[0])
    assert count == len(json.loads(spdx.read_bytes())["packages"]) > 30, "they read as many packages as we wrote"
    judge(CYCLONEDX, cyclonedx)


def test_the_validators_see_faults(images: tuple[Store, list[tuple[str, Image]]], tmp_path: Path) -> None:
    store, listed = images
    content = content_of(store, tmp_path)
    path = tmp_path / "bad.json"
    spdx = document(listed, content)
    spdx["packages"][1]["licenseDeclared"] = "MIT AND"
    path.write_bytes(encode(spdx))
    judge(SPDX, path, good=False)
    cyclonedx = document(listed, content, format="cyclonedx")
    cyclonedx["components"][0]["type"] = "nonsense"
    path.write_bytes(encode(cyclonedx))
    judge(CYCLONEDX, path, good=False)


def test_package_urls_are_canonical(images: tuple[Store, list[tuple[str, Image]]], tmp_path: Path) -> None:
    store, listed = images
    found: list[str] = []

    def walk(component: Mapping[str, Any]) -> None:
        found.extend([component["purl"]] if "purl" in component else [])
        for inner in component.get("components", ()):
            walk(inner)

    walk(document(listed, content_of(store, tmp_path), format="cyclonedx"))
    assert len(found) > 20
    path = tmp_path / "purls.json"
    path.write_text(json.dumps(found))
    judge(PURLS, path)


def test_provenance_is_an_in_toto_statement(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    (tmp_path / "web.yml").write_text(YAML)
    path = tmp_path / "p.json"
    linuxkit("build", "--provenance", path, "--provenance-output", "provenance.json", "web.yml",
             cwd=tmp_path, cache=cache)  # fmt: skip
    judge(INTOTO, path)
    statement = json.loads(path.read_text())
    del statement["subject"]
    path.write_text(json.dumps(statement))
    judge(INTOTO, path, good=False)


def test_what_a_build_embeds_is_valid(tmp_path: Path) -> None:
    import tarfile

    cache = make_cache(tmp_path)
    (tmp_path / "web.yml").write_text(YAML)
    for kind, judged in (("spdx", SPDX), ("cyclonedx", CYCLONEDX)):
        linuxkit("build", "--sbom-format", kind, "--sbom-output", "here.json", "--format", "tar", "--o", "x.tar",
                 "web.yml", cwd=tmp_path, cache=cache)  # fmt: skip
        with tarfile.open(tmp_path / "x.tar") as archive:
            member = archive.extractfile("here.json")
            assert member is not None
            (tmp_path / "here.json").write_bytes(member.read())
        judge(judged, tmp_path / "here.json")
        printed = linuxkit("sbom", "--format", kind, "web.yml", cwd=tmp_path, cache=cache).stdout
        assert printed == (tmp_path / "here.json").read_text(), "linuxkit sbom prints what a build embeds"


def test_attached_to_an_image_in_debians_registry(tmp_path: Path) -> None:
    """Debian's docker-registry has no referrers API: the list is under a tag. skopeo reads what we put there."""
    store = Store(tmp_path / "cache")
    image_with(store, "docker.io/t/app:1", {"var/lib/dpkg/status": DPKG})
    with docker_registry(tmp_path / "registry") as host:
        name = f"{host}/t/app"
        linuxkit("cache", "push", "--remote-name", f"{name}:1", "t/app:1", cwd=tmp_path, cache=store.root)
        linuxkit("sbom", "--outfile", "s.json", f"{name}:1", cwd=tmp_path, cache=store.root)
        said = linuxkit("attach", f"{name}:1", "--sbom", "s.json", cwd=tmp_path, cache=store.root).stdout.strip()

        def raw(reference: str) -> dict[str, Any]:
            command = [tool("skopeo"), "inspect", "--tls-verify=false", "--raw", f"docker://{reference}"]
            found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            return found

        manifest = raw(said)
        assert manifest["artifactType"] == "application/spdx+json"
        listed = raw(f"{name}:{manifest['subject']['digest'].replace(':', '-')}")["manifests"]
        assert [(entry["digest"], entry["artifactType"]) for entry in listed] == [
            (said.partition("@")[2], "application/spdx+json")
        ]
        again = linuxkit("attach", f"{name}:1", "--sbom", "s.json", cwd=tmp_path, cache=store.root).stdout.strip()
        assert again == said
        assert len(raw(f"{name}:{manifest['subject']['digest'].replace(':', '-')}")["manifests"]) == 1
        judge(SPDX, tmp_path / "s.json")


SPEC = """
Name: %(name)s
Version: 1.2
Release: 3
%(epoch)s
Summary: a test of a name
License: %(licence)s
URL: https://example.com/
Vendor: Example Incorporated
BuildArch: noarch
%%description
text
%%files
"""


def test_a_database_that_rpm_wrote(tmp_path: Path) -> None:
    rpmbuild, rpm_tool = tool("rpmbuild"), tool("rpm")
    top, root = tmp_path / "top", tmp_path / "root"
    made = []
    for name, epoch, licence in (("alpha", "Epoch: 4", "MIT AND Apache-2.0"), ("beta-libs", "", "GPLv2+")):
        spec = tmp_path / f"{name}.spec"
        spec.write_text(SPEC % {"name": name, "epoch": epoch, "licence": licence})
        run = [rpmbuild, "-bb", "--define", f"_topdir {top}", "--define", "_rpmfilename %{NAME}.rpm", str(spec)]
        subprocess.run(run, check=True, capture_output=True)
        made.append(str(top / "RPMS" / f"{name}.rpm"))
    base = [rpm_tool, "--root", str(root), "--dbpath", "/var/lib/rpm", "--define", "_db_backend sqlite"]
    subprocess.run([*base, "-i", "--justdb", "--nodeps", *made], check=True, capture_output=True)
    fields = "%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\t%{EPOCH}\t%{LICENSE}\t%{VENDOR}\t%{URL}\t%{SUMMARY}\n"
    said = subprocess.run([*base, "-qa", "--qf", fields], check=True, capture_output=True, text=True).stdout
    wanted = sorted(tuple(line.replace("(none)", "").split("\t")) for line in said.splitlines())
    found = rpm.parse((root / "var/lib/rpm/rpmdb.sqlite").read_bytes())
    assert found.notes == ()
    assert [(p.name, p.version, p.architecture, p.epoch, p.licence, p.supplier, p.homepage, p.about)
            for p in found.packages] == wanted  # fmt: skip
    assert [(p.source, p.source_version) for p in found.packages] == [("alpha", "1.2-3"), ("beta-libs", "1.2-3")]


def test_this_systems_own_dpkg_database() -> None:
    fields = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\n"
    run = [tool("dpkg-query"), "-W", "-f", fields]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    wanted = sorted(tuple(line.split("\t")[1:]) for line in said.splitlines() if line.startswith("installed\t"))
    found = dpkg.parse(Path("/var/lib/dpkg/status").read_bytes())
    assert len(wanted) > 50
    assert sorted((p.name, p.version, p.architecture, p.source or p.name) for p in found.packages) == wanted
    assert found.notes == ()
