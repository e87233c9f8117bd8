"""Bills of materials: databases to packages, layers to an inventory, inventories to documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linuxkit.oci.media import Image, ImageConfig, Platform
from linuxkit.oci.store import Store
from linuxkit.plan.asked import LOADER
from linuxkit.sbom import apk, copyright, dpkg, kit, rpm
from linuxkit.sbom.layers import inventory
from linuxkit.sbom.licences import licence
from linuxkit.sbom.make import document, encode
from linuxkit.sbom.model import Distribution, Package, from_json, to_json
from linuxkit.sbom.purl import image_purl, purl
from support.databases import APK, BASH_RPM, DPKG, attest, content_of, image_with, rpm_header, rpmdb
from support.images import directory, make_image, member, symlink, tar_of

pytestmark = pytest.mark.unit
HERE = "containers/services/app/lower"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def names(packages: tuple[Package, ...]) -> list[str]:
    return [f"{p.kind} {p.name} {p.version}" for p in packages]


# -- databases


def test_dpkg_lists_what_is_installed() -> None:
    found = dpkg.parse(DPKG)
    assert names(found.packages) == ["deb bash 5.2.15-2+b7", "deb libc6 1:2.36-9"]
    bash, libc = found.packages
    assert (bash.source, bash.source_version, libc.source, libc.source_version) == ("bash", "5.2.15-2", "glibc", "")
    assert bash.supplier == "Matthias Example <doko@debian.example.org>"
    assert (bash.about, bash.architecture) == ("GNU Bourne Again SHell", "amd64")
    assert found.notes == ()


def test_apk_reads_a_package_and_not_its_files() -> None:
    found = apk.parse(APK)
    assert names(found.packages) == ["apk musl 1.2.5-r0", "apk busybox 1.36.1-r29"]
    assert (found.packages[0].licence, found.packages[0].homepage) == ("MIT", "https://musl.libc.org/")


@pytest.mark.parametrize("wal", [True, False])
def test_rpm_reads_headers_out_of_sqlite(wal: bool) -> None:
    key = rpm_header(name="gpg-pubkey", version="a15b79cc", release="63d04c2c")
    found = rpm.parse(rpmdb(BASH_RPM, key, rpm_header(name="a", version="1", release="2"), wal=wal))
    assert names(found.packages) == ["rpm a 1-2", "rpm bash 5.2.26-3.fc40"]
    bash = found.packages[1]
    assert (bash.epoch, bash.licence, bash.supplier) == ("1", "GPL-3.0-or-later", "Fedora Project")
    assert (bash.source, bash.source_version, bash.about) == ("bash", "5.2.26-3.fc40", "The GNU Bourne Again shell")
    assert found.notes == ()


def test_copyright_files_that_machines_can_read() -> None:
    text = b"""Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
License: GPL-2+ or Artistic
 text
License: Expat
"""
    assert copyright.parse(text) == "Expat\nGPL-2+ or Artistic"
    assert copyright.parse(b"This package was debianized by hand.\nLicense: GPL-2\n") == ""


def test_packages_survive_the_cache() -> None:
    one = Package("deb", "a", "1", checksums=(("SHA256", "ab"),), licence="MIT")
    assert from_json(json.loads(json.dumps(to_json(one)))) == one


# -- names


@pytest.mark.parametrize(("package", "distribution", "expected"), [
    (Package("deb", "libc6", "1:2.36-9+deb12u1", "amd64", source="glibc", source_version="2.36-9"),
     Distribution("debian", "12"),
     "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=glibc%402.36-9"),
    (Package("apk", "musl", "1.2.5-r0", "x86_64", source="musl"), Distribution(),
     "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64"),
    (Package("rpm", "NetworkManager", "1.46-1.el9", "x86_64", "1"), Distribution("rhel", "9.4"),
     "pkg:rpm/redhat/NetworkManager@1.46-1.el9?arch=x86_64&distro=rhel-9.4&epoch=1"),
    (Package("deb", "libfoo++", "1.0~rc1", "all"), Distribution("ubuntu", "24.04"),
     "pkg:deb/ubuntu/libfoo%2B%2B@1.0~rc1?arch=all&distro=ubuntu-24.04"),
    (Package("golang", "x", "1", purl="pkg:golang/example.com/x@1"), Distribution("debian"),
     "pkg:golang/example.com/x@1"),
])  # fmt: skip
def test_package_urls(package: Package, distribution: Distribution, expected: str) -> None:
    assert purl(package, distribution) == expected


def test_the_package_url_of_an_image() -> None:
    digest = "sha256:" + "a" * 64
    image = Image("registry.example:5000/team/App:1.2", digest, Platform("linux", "arm64"), ImageConfig(), ())
    assert image_purl(image) == (
        f"pkg:oci/app@{digest}?arch=arm64&repository_url=registry.example:5000/team/app&tag=1.2"
    )


@pytest.mark.parametrize(("said", "expression"), [
    ("MIT", "MIT"), ("mit and apache-2.0", "MIT AND Apache-2.0"), ("", ""), ("GPL-2.0+", "GPL-2.0-or-later"),
    ("GPL-2", "GPL-2.0-only"), ("LGPL-2.1", "LGPL-2.1-only"), ("Expat", "MIT"),
    ("GPL-2.0-or-later WITH classpath-exception-2.0", "GPL-2.0-or-later WITH Classpath-exception-2.0"),
    ("(MIT OR Apache-2.0) AND BSD-3-clause", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
    ("MIT OR Apache-2.0\nZlib\nMIT OR Apache-2.0", "(MIT OR Apache-2.0) AND Zlib"),
    ("Zlib AND X11\nX11\nMIT AND Zlib", "Zlib AND X11 AND MIT"), ("MIT\n(X11)", "MIT AND (X11)"),
    ("GPLv2", "LicenseRef-GPLv2"), ("MIT GPL2", "LicenseRef-MIT-GPL2-"), ("(MIT", "LicenseRef-MIT-"),
    ("MIT AND", "LicenseRef-MIT-AND-"), ("((((", "LicenseRef--"), ("MIT WITH hope", "LicenseRef-MIT-WITH-hope-"),
    ("LicenseRef-Foo AND MIT", "LicenseRef-Foo AND MIT"), ("Unknown", ""),
])  # fmt: skip
def test_licences(said: str, expression: str) -> None:
    got = licence(said)
    assert got.expression == expression or (expression.endswith("-") and got.expression.startswith(expression))
    for name, text in got.texts:
        assert name in got.expression
        assert text in said


def test_a_kit_package_names_its_debs() -> None:
    labels = {kit.PACKAGES: "libc6=2.41-12 nginx=1.26.3-3 broken", kit.DIGESTS: f"nginx={'a' * 64}"}
    labels[kit.SUITE] = "trixie"
    found = kit.parse(labels, "amd64").packages
    assert names(found) == ["deb libc6 2.41-12", "deb nginx 1.26.3-3"]
    assert found[1].checksums == (("SHA256", "a" * 64),)
    assert kit.distribution(labels) == Distribution("debian", "13")


# -- images


def test_layers_are_merged_and_parsed_once(store: Store, tmp_path: Path) -> None:
    image = image_with(
        store, "docker.io/t/a:1",
        {"var/lib/dpkg/status": b"Package: old\nVersion: 1\n", "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
         "var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12\n",
         "var/lib/dpkg/status.d/base.md5sums": b"Package: no\nVersion: 1\n"},
        {"var/lib/dpkg/status": DPKG, "usr/share/doc/bash/copyright":
         b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: GPL-3+\n"},
    )  # fmt: skip
    content = content_of(store, tmp_path)
    found = inventory(image, content)
    assert names(found.packages) == ["deb base-files 12", "deb bash 5.2.15-2+b7", "deb libc6 1:2.36-9"]
    assert found.packages[1].licence == "GPL-3+"
    assert found.distribution == Distribution("debian", "12")
    kept = sorted((tmp_path / "derived" / "sbom").glob("*.json"))
    assert len(kept) == 2
    for path in (tmp_path / "derived" / "layers").iterdir():
        path.unlink()
    for digest in (layer.digest for layer in image.layers):
        store.blob_path(digest).unlink()
    assert inventory(image, content) == found, "the second time no layer is read"


@pytest.mark.parametrize("upper", [
    [member("var/lib/dpkg/.wh.status")],
    [member("var/lib/.wh.dpkg")],
    [directory("var"), member("var/.wh.lib")],
    [symlink("var/lib/dpkg", "../../usr/lib/dpkg")],
    [directory("var/lib/dpkg/status")],
])  # fmt: skip
def test_a_database_that_a_layer_removes_does_not_count(store: Store, tmp_path: Path, upper: list) -> None:
    lower = tar_of(member("var/lib/dpkg/status", DPKG), member("usr/lib/dpkg/status", DPKG))
    image = make_image(store, "docker.io/t/a:1", lower, tar_of(*upper))
    assert inventory(image, content_of(store, tmp_path)).packages == ()


@pytest.mark.parametrize("layers", [
    [[symlink("var/lib/dpkg", "../../usr/lib/dpkg")], [member("var/lib/dpkg/status", DPKG)]],
    [[symlink("lib", "usr/lib"), directory("usr/lib")], [member("lib/apk/db/installed", APK)]],
    [[symlink("lib", "usr/lib"), member("lib/apk/db/installed", APK), directory("usr/lib/apk/db")]],
    [[symlink("lib", "usr/lib"), member("usr/lib/apk/db/installed", APK)], [member("lib/apk/db/other")]],
])  # fmt: skip
def test_a_database_that_goes_through_a_link_counts(store: Store, tmp_path: Path, layers: list) -> None:
    image = make_image(store, "docker.io/t/a:1", *(tar_of(*layer) for layer in layers))
    assert inventory(image, content_of(store, tmp_path)).packages


def test_a_database_that_goes_through_a_link_replaces_and_can_be_deleted(store: Store, tmp_path: Path) -> None:
    lower = tar_of(symlink("lib", "usr/lib"), directory("usr/lib"), member("usr/lib/apk/db/installed", APK))
    for upper in (member("lib/apk/db/installed", b""), member("lib/apk/db/.wh.installed")):
        image = make_image(store, "docker.io/t/a:1", lower, tar_of(upper))
        assert inventory(image, content_of(store, tmp_path)).packages == ()


@pytest.mark.parametrize(("whiteouts", "count"), [("oci", 0), ("linuxkit", 2)])
def test_an_opaque_folder_counts_as_the_build_reads_it(
    store: Store, tmp_path: Path, whiteouts: str, count: int
) -> None:
    image = make_image(store, "docker.io/t/a:1", tar_of(member("var/lib/dpkg/status", DPKG)),
                       tar_of(member("var/lib/.wh..wh..opq")))  # fmt: skip
    assert len(inventory(image, content_of(store, tmp_path, whiteouts=whiteouts)).packages) == count


def test_databases_of_every_kind_and_those_that_cannot_be_read(store: Store, tmp_path: Path) -> None:
    image = image_with(store, "docker.io/t/a:1", {
        "lib/apk/db/installed": APK, "usr/lib/sysimage/rpm/rpmdb.sqlite": rpmdb(BASH_RPM),
        "usr/lib/sysimage/rpm/rpmdb.sqlite-wal": b"", "var/lib/rpm/Packages": b"\0" * 64,
        "usr/lib/os-release": b"ID=fedora\nVERSION_ID=40\n",
    })  # fmt: skip
    found = inventory(image, content_of(store, tmp_path))
    assert names(found.packages) == ["apk busybox 1.36.1-r29", "apk musl 1.2.5-r0", "rpm bash 5.2.26-3.fc40"]
    assert found.notes == (
        "/var/lib/rpm/Packages: a Berkeley DB, which cannot be read here: its packages are not listed",
    )
    made = document([("", image)], content_of(store, tmp_path))
    assert "Berkeley" in made["packages"][0]["annotations"][0]["comment"]


# -- documents


def test_spdx_says_which_image_and_where(store: Store, tmp_path: Path) -> None:
    app = image_with(store, "docker.io/t/app:1", {"var/lib/dpkg/status": DPKG})
    tool = image_with(store, "docker.io/t/tool:1", {"lib/apk/db/installed": APK})
    content = content_of(store, tmp_path)
    made = document([(HERE, app), ("", tool)], content)
    assert made == document([(HERE, app), ("", tool)], content_of(store, tmp_path / "again"))
    assert (made["spdxVersion"], made["creationInfo"]["created"]) == ("SPDX-2.3", "2017-04-18T16:30:00Z")
    by_id = {p["SPDXID"]: p for p in made["packages"]}
    image = by_id["SPDXRef-Image-0"]
    assert (image["name"], image["versionInfo"], image["packageFileName"]) == (app.reference, app.digest, f"./{HERE}")
    inside = {(r["spdxElementId"], by_id[r["relatedSpdxElement"]]["name"]) for r in made["relationships"]
              if r["relationshipType"] == "CONTAINS"}  # fmt: skip
    assert inside == {("SPDXRef-Image-0", "bash"), ("SPDXRef-Image-0", "libc6"),
                      ("SPDXRef-Image-1", "musl"), ("SPDXRef-Image-1", "busybox")}  # fmt: skip
    assert document([("", tool)], content)["documentNamespace"] != made["documentNamespace"]
    dated = document([("", tool)], content, created="2026-01-02T03:04:05Z")
    assert dated["creationInfo"]["created"] == "2026-01-02T03:04:05Z"


def test_cyclonedx_nests_packages_in_their_image(store: Store, tmp_path: Path) -> None:
    tool = image_with(store, "docker.io/t/tool:1", {"lib/apk/db/installed": APK})
    made = document([("a", tool), ("b", tool)], content_of(store, tmp_path), format="cyclonedx")
    assert made == document([("a", tool), ("b", tool)], content_of(store, tmp_path / "again"), format="cyclonedx")
    one, two = made["components"]
    assert (one["type"], one["properties"]) == ("container", [{"name": "linuxkit:path", "value": "/a"}])
    assert [(c["name"], c["licenses"]) for c in one["components"]] == [
        ("busybox", [{"license": {"id": "GPL-2.0-only"}}]), ("musl", [{"license": {"id": "MIT"}}]),
    ]  # fmt: skip
    references = [c["bom-ref"] for image in (one, two) for c in (image, *image["components"])]
    assert len(references) == len(set(references)) == 6


ATTESTED = {
    "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "app", "dataLicense": "CC0-1.0",
    "packages": [
        {"SPDXID": "SPDXRef-Package-go", "name": "example.com/mod", "versionInfo": "v1", "licenseDeclared":
         "LicenseRef-own", "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                                             "referenceLocator": "pkg:golang/example.com/mod@v1"}]},
        {"SPDXID": "SPDXRef-Package-musl", "name": "musl", "versionInfo": "1.2.5-r0", "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
             "referenceLocator": "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64"}]},
    ],
    "files": [{"SPDXID": "SPDXRef-File-1", "fileName": "./bin/app", "checksums":
               [{"algorithm": "SHA1", "checksumValue": "a" * 40}]}],
    "hasExtractedLicensingInfos": [{"licenseId": "LicenseRef-own", "extractedText": "do as you like"}],
    "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement":
         "SPDXRef-Package-go"},
        {"spdxElementId": "SPDXRef-Package-go", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-File-1"},
        {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-gone"},
    ],
}  # fmt: skip


def test_what_is_attested_is_merged(store: Store, tmp_path: Path) -> None:
    image = image_with(store, "docker.io/t/app:1", {"lib/apk/db/installed": APK})
    image = attest(store, image, ("https://spdx.dev/Document", ATTESTED))
    content = content_of(store, tmp_path)
    made = document([("", image), (HERE, image)], content)
    assert [p["SPDXID"] for p in made["packages"]] == [
        "SPDXRef-Image-0", "SPDXRef-0-apk-busybox", "SPDXRef-0-apk-musl", "SPDXRef-0-Package-go",
        "SPDXRef-Image-1", "SPDXRef-1-apk-busybox", "SPDXRef-1-apk-musl", "SPDXRef-1-Package-go",
    ], "musl is said once"  # fmt: skip
    assert [f["fileName"] for f in made["files"]] == ["./bin/app", f"./{HERE}/bin/app"]
    assert made["packages"][3]["licenseDeclared"] == "LicenseRef-0-own"
    assert {"LicenseRef-0-own", "LicenseRef-1-own"} <= {e["licenseId"] for e in made["hasExtractedLicensingInfos"]}
    related = {(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"]) for r in made["relationships"]}
    assert ("SPDXRef-Image-1", "CONTAINS", "SPDXRef-1-Package-go") in related
    assert ("SPDXRef-1-Package-go", "CONTAINS", "SPDXRef-1-File-1") in related
    assert made["packages"][0]["annotations"][0]["comment"].startswith("1 entries of its attested SBOM")
    listed = document([("", image)], content, format="cyclonedx")["components"][0]["components"]
    assert [c["name"] for c in listed] == ["busybox", "musl", "example.com/mod"]


def test_an_attested_cyclonedx_document_counts_too(store: Store, tmp_path: Path) -> None:
    image = image_with(store, "docker.io/t/app:1", {"a": b"a"})
    bom = {"components": [{"type": "container", "name": "x", "components": [
        {"name": "lib", "version": "1.0", "purl": "pkg:pypi/lib@1.0", "licenses": [{"license": {"id": "MIT"}}]}]}]}
    image = attest(store, image, ("https://cyclonedx.org/bom/v1.5", bom))
    found = inventory(image, content_of(store, tmp_path)).packages
    assert found == (Package("pypi", "lib", "1.0", licence="MIT", purl="pkg:pypi/lib@1.0"),)


@pytest.mark.parametrize("kind", ["spdx", "cyclonedx"])
def test_a_line_for_each_package(store: Store, tmp_path: Path, kind: str) -> None:
    image = image_with(store, "docker.io/t/app:1", {"var/lib/dpkg/status": DPKG, "lib/apk/db/installed": APK})
    made = document([("", image)], content_of(store, tmp_path), format=kind)
    text = encode(made)
    assert json.loads(text) == made
    assert text.endswith(b"}\n")
    lines = [line for line in text.decode().splitlines() if '"name": "bash"' in line]
    assert len(lines) == 1
    assert json.loads(lines[0].rstrip(","))["name"] == "bash"


# -- what our own programs are made of, boot loaders, texts of licences


def test_a_kit_package_names_its_compiler_and_its_c_library(store: Store, tmp_path: Path) -> None:
    labels = {kit.COMPILER: "ziglang 0.17.1", kit.LIBC: "musl 1.2.5"}
    own = image_with(store, "linuxkit.kit/init:1", {"init": b"x"}, labels=labels)
    plain = image_with(store, "docker.io/t/app:1", {"a": b"x"})
    made = document([("", own), (HERE, plain)], content_of(store, tmp_path))
    by_id = {p["SPDXID"]: p for p in made["packages"]}
    libc = next(p for p in made["packages"] if p["name"] == "musl")
    assert (libc["versionInfo"], libc["licenseDeclared"]) == ("1.2.5", "MIT")
    tools = [r for r in made["relationships"] if r["relationshipType"] == "BUILD_TOOL_OF"]
    found = [(by_id[r["spdxElementId"]]["name"], r["relatedSpdxElement"]) for r in tools]
    assert found == [("ziglang", "SPDXRef-Image-0")]
    nested = document([("", own), (HERE, plain)], content_of(store, tmp_path), format="cyclonedx")["components"]
    assert {"name": "linuxkit:compiler", "value": "ziglang 0.17.1"} in nested[0]["properties"]
    assert [c["name"] for c in nested[0]["components"]] == ["musl"] and "components" not in nested[1]


@pytest.mark.parametrize("label", ["", "zig", "zig 1 2", "zig 1\n2", f"zig {'1' * 300}", " 1"])
def test_odd_labels_of_a_compiler_are_none(label: str) -> None:
    assert kit.compiler({kit.COMPILER: label}) == ""
    assert not kit.parse({kit.LIBC: label}, "amd64").packages


def test_a_boot_loader_is_beside_the_root(store: Store, tmp_path: Path) -> None:
    loader = image_with(store, "linuxkit.kit/efi-boot:1", {"a": b"x"})
    (found,) = document([(LOADER, loader)], content_of(store, tmp_path))["packages"]
    assert "packageFileName" not in found and "boot loader" in found["comment"]
    (one,) = document([(LOADER, loader)], content_of(store, tmp_path), format="cyclonedx")["components"]
    assert one["properties"] == [{"name": "linuxkit:path", "value": "boot loader"}]


COPYRIGHT = b"""Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: odd-one and GPL-2+

Files: x
License: named-only

License: odd-one
 You may do this.
 .
   And that.

License: GPL-2+
 The text of the GPL.
"""


def test_the_text_of_a_licence_is_its_text(store: Store, tmp_path: Path) -> None:
    odd = "You may do this.\n\n  And that."
    assert copyright.texts(COPYRIGHT) == {"odd-one": odd, "GPL-2+": "The text of the GPL."}
    assert copyright.texts(b"License: a\n text\n") == {}
    other = COPYRIGHT.replace(b"You may do this.", b"You may not.")
    images = [image_with(store, f"docker.io/t/{n}:1", {
        "var/lib/dpkg/status": DPKG, "usr/share/doc/bash/copyright": text,
    }) for n, text in enumerate((COPYRIGHT, COPYRIGHT, other))]  # fmt: skip
    made = document([(str(n), image) for n, image in enumerate(images)], content_of(store, tmp_path))
    listed = {i["licenseId"]: i for i in made["hasExtractedLicensingInfos"]}
    bashes = [p["licenseDeclared"] for p in made["packages"] if p["name"] == "bash"]
    assert bashes[0] == bashes[1] != bashes[2]  # another text is another licence, whatever it is called
    assert sorted(i["extractedText"].partition("\n")[0] for i in listed.values() if i["name"] == "odd-one") == [
        "You may do this.", "You may not.",
    ]  # fmt: skip
    (bare,) = (i for i in listed.values() if i["name"] == "named-only")
    assert bare["extractedText"].startswith("Its text is not in the image.")
    for expression in bashes:
        assert all(word in listed for word in expression.replace("(", " ").split() if word.startswith("LicenseRef"))
    nested = document([("", images[0])], content_of(store, tmp_path), format="cyclonedx")
    assert json.dumps(nested).count("named-only") >= 1
