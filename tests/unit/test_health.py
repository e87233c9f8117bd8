"""healthcheck: of the YAML and of images → what the guest does. tests/guest reads the same plan with its own parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError
from linuxkit.oci.document import parse_config as parse_image
from linuxkit.oci.media import ImageHealthcheck
from linuxkit.plan.containers import guest_files
from linuxkit.plan.model import BundlePlan
from linuxkit.runtime.bootplan import PlannedContainer, boot_plan
from linuxkit.runtime.check import check_settings
from linuxkit.runtime.health import Health, health_of, milliseconds, seconds

pytestmark = pytest.mark.unit
FIXTURE = Path(__file__).resolve().parents[1] / "guest" / "fixtures" / "plan-health"
DOCKER = {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 5 * 10**9, "Retries": 2, "StartPeriod": 10**9}


def entry(text: str) -> str:
    return f"services:\n  - name: web\n    image: a/b\n    healthcheck: {text}\n"


def health(text: str, image: ImageHealthcheck | None = None) -> Health | None:
    return health_of(parse_config(entry(text)).services[0], image)


def test_the_plan_with_checks_is_the_one_that_the_guest_is_tested_with() -> None:
    checks = (
        Health("exec", ("/bin/sh", "-c", "test -e /a\tb\n"), 0, "", 1500, 200, 7, 60_000),
        Health("http", port=8080, path="/health?x=1"),
        Health("tcp", port=65535),
    )
    planned = [
        PlannedContainer("service", f"s{n}", f"/containers/services/s{n}", {}, {}, health=one)
        for n, one in enumerate(checks)
    ]
    planned.append(PlannedContainer("onshutdown", "bye", "/containers/onshutdown/000-bye", {}, {}, timeout=600))
    assert boot_plan([], planned) == FIXTURE.read_bytes()
    assert boot_plan([], [PlannedContainer("service", "a", "/a", {}, {})]).startswith(b"linuxkit-plan\t1\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{test: exit 0}", Health("exec", ("/bin/sh", "-c", "exit 0"))),
        ("{test: [CMD-SHELL, exit 0], interval: 1m30s}", Health("exec", ("/bin/sh", "-c", "exit 0"), interval=90_000)),
        ("{test: [CMD, /check, --fast], retries: 5}", Health("exec", ("/check", "--fast"), retries=5)),
        ("{test: [NONE]}", None),
        ("{disable: true}", None),
        ("{http: 8080/a/b?c=d, timeout: 500ms}", Health("http", port=8080, path="/a/b?c=d", timeout=500)),
        ('{http: "80"}', Health("http", port=80, path="/")),
        ("{tcp: 5432, start_period: 1h}", Health("tcp", port=5432, start_period=3_600_000)),
    ],
)
def test_a_check_of_every_kind(text: str, found: Health | None) -> None:
    assert health(text) == found
    check_settings(parse_config(entry(text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{test: a, tcp: 1}", "f.yml:4:18: services[0].healthcheck: a health check has only one of"),
        ("{test: [sh, -c, a]}", "begins with CMD, CMD-SHELL or NONE"),
        ("{test: [CMD]}", "begins with CMD"),
        ("{test: []}", "begins with CMD"),
        ("{interval: soon}", "a time such as 30s"),
        ("{interval: 30}", "string"),
        ("{tcp: 1, interval: 25h}", "interval of the health check is not between"),
        ("{tcp: 1, interval: 0s}", "interval of the health check is not between"),
        ("{tcp: 65536}", "out of range"),
        ("{http: 0/x}", "PORT or PORT/PATH"),
        ("{http: 70000/x}", "PORT or PORT/PATH"),
        ("{http: '80/a b'}", "PORT or PORT/PATH"),
        ("{retries: 0}", "out of range"),
        ("{tests: a}", "unknown key"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_settings(parse_config(entry(text), "f.yml"))
    said = "\n".join(f"{p.file}:{p.line}:{p.column}: {p.path}: {p.message} {p.hint}" for p in caught.value.problems)
    assert message in said and "f.yml:4:" in said


def test_an_images_own_check_counts_and_each_key_of_the_yaml_wins() -> None:
    image = parse_image({"config": {"Healthcheck": DOCKER}}, "x").healthcheck
    assert image == ImageHealthcheck(("CMD-SHELL", "curl -f localhost"), 5 * 10**9, 0, 10**9, 2)
    plain = parse_config("services: [{name: web, image: a/b}]").services[0]
    own = Health("exec", ("/bin/sh", "-c", "curl -f localhost"), interval=5000, retries=2, start_period=1000)
    assert health_of(plain, image) == own and health_of(plain, None) is None
    assert health("{retries: 9}", image) == Health(own.kind, own.test, interval=5000, retries=9, start_period=1000)
    assert health("{disable: true}", image) is None
    found = health("{tcp: 80}", image)
    assert found is not None and (found.kind, found.interval) == ("tcp", 5000)
    with pytest.raises(InputError, match="settings that cannot work"):
        health("{retries: 9}")


@pytest.mark.parametrize(
    "found",
    [None, [], "x", {"Test": "x"}, {"Test": []}, {"Test": [1]}, {"Test": ["NONE"]}, {"Test": ["CMD"]},
     {"Test": ["odd", "x"]}, {"Test": ["CMD", "a" * 70_000]}, {"Test": ["CMD", "a\0b"]}],
)  # fmt: skip
def test_an_odd_check_of_a_strangers_image_is_none(found: object) -> None:
    image = parse_image({"config": {"Healthcheck": found}}, "x").healthcheck
    assert health_of(parse_config("services: [{name: web, image: a/b}]").services[0], image) is None


def test_numbers_of_a_strangers_image_stay_in_bounds() -> None:
    odd = {"Test": ["CMD", "x"], "Interval": -5, "Timeout": 10**30, "Retries": 10**15, "StartPeriod": True}
    image = parse_image({"config": {"Healthcheck": odd}}, "x").healthcheck
    assert health_of(parse_config("services: [{name: web, image: a/b}]").services[0], image) == Health("exec", ("x",))


@pytest.mark.parametrize(("text", "ms"), [("1.5s", 1500), ("1h1m1s1ms", 3_661_001), ("0s", 0), ("250us", 0)])
def test_times(text: str, ms: int) -> None:
    assert milliseconds(text) == ms
    assert seconds("1001ms") == 2
    for wrong in ("", "1", "s", "-1s", "1d", "1s ", "\uff11s"):
        with pytest.raises(ValueError):
            milliseconds(wrong)


def test_an_init_image_that_is_too_old_is_refused() -> None:
    check = Health("tcp", port=1)
    bundle = BundlePlan("services", "a", "containers/services/a", ("a", "b"), False, {}, {}, health=check)
    config = parse_config(entry("{tcp: 1}"))
    with pytest.raises(InputError, match="init image is older"):
        guest_files(config, (), (bundle,), 1)
    assert guest_files(config, (), (bundle,), 2)
