"""Health checks of services, with a stand-in for the OCI runtime whose `exec` runs the command here."""

from __future__ import annotations

import http.server
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from guest_box import CRUN, STOP, Box

from linuxkit.config.model import OnFail, Restart
from linuxkit.runtime.bootplan import PlannedContainer, boot_plan
from linuxkit.runtime.health import Health

pytestmark = pytest.mark.guest


@pytest.fixture
def crun(box: Box) -> Box:
    box.own_usr()
    (box.root / "usr/bin/service").symlink_to("/init")
    box.script("usr/bin/crun", CRUN)
    return box


def service(name: str, health: Health, restart: Restart = Restart.NO) -> PlannedContainer:
    return PlannedContainer("service", name, f"/run/{name}", {}, {}, restart, OnFail.CONTINUE, health=health)


def check(test: str, **times: int) -> Health:
    return Health("exec", ("/bin/sh", "-c", test), **{"interval": 300, "timeout": 1000, "retries": 2, **times})


def run(box: Box, seconds: float, *services: PlannedContainer, script: str = "") -> str:
    """Boots, and what `service status` and the script said after that time."""
    (box.root / "etc/linuxkit/plan").write_bytes(boot_plan([], services))
    for one in services:
        if not (box.root / "out" / one.name).exists():
            box.script(f"out/{one.name}", "exec sleep 100")
    box.link("etc/init.d/030-services")
    box.script("etc/init.d/040-z", f"exec > /out/said 2>&1\n{script}\nsleep {seconds}; /out/service status\n" + STOP)
    box.run()
    return (box.root / "out/said").read_text()


def health(box: Box, name: str) -> list[dict]:
    return [e for e in box.events() if (e["event"], e["step"]) == ("health", f"service/{name}")]


def test_a_service_becomes_healthy_unhealthy_and_healthy_again(crun: Box) -> None:
    test = "[ -e /out/ill ] && { echo no room; echo for patients >&2; exit 1; }; [ -e /out/up ]"
    script = "sleep 1; touch /out/up; sleep 2; touch /out/ill; sleep 1.5; rm /out/ill"
    text = run(crun, 1.5, service("a", check(test, start_period=30_000)), script=script)
    found = health(crun, "a")
    assert [e["health"] for e in found] == ["healthy", "unhealthy", "healthy"]
    assert crun.event("ready", "service/a")["health"] == "starting"
    assert found[1]["message"] == "for patients" and found[1]["log"] == ["no room", "for patients"]
    assert found[0]["ms"] > 900 and re.search(r"^a +running .* healthy", text, re.M)


def test_failures_count_after_the_start_and_at_the_checks_own_pace(crun: Box) -> None:
    soon, later = (service(name, check("exit 3", interval=ms)) for name, ms in (("soon", 500), ("later", 2000)))
    text = run(crun, 2.5, soon, later)
    assert [e["health"] for e in health(crun, "soon")] == ["unhealthy"] and not health(crun, "later")
    assert re.search(r"^soon +running .*unhealthy", text, re.M) and re.search(r"^later +running .*starting", text, re.M)


def test_a_check_that_hangs_or_floods_is_ended(crun: Box) -> None:
    text = run(
        crun, 3,
        service("hang", check("trap '' TERM; echo waiting; while :; do sleep 0.1; done", timeout=300)),
        service("flood", check("yes to all that", timeout=300)),
        script="(sleep 2.5; ls -l /run/linuxkit/out/flood.health) &",
    )  # fmt: skip
    assert [e["health"] for e in health(crun, "hang")] == ["unhealthy"]
    assert health(crun, "hang")[0]["log"] == ["waiting", "the check took longer than its timeout"]
    size = re.search(r" (\d+) \w+ +\d+ [0-9:]+ /run/linuxkit/out/flood.health", text)
    assert size and int(size[1]) < 5000
    assert crun.event("off", "shutdown")["ms"] < 3000


def test_a_service_that_ended_is_not_checked(crun: Box) -> None:
    crun.script("out/a", "sleep 0.2; exit 4")
    text = run(crun, 1.5, service("a", check("exit 0", interval=100)))
    assert health(crun, "a") == [] or health(crun, "a")[0]["health"] == "healthy"
    assert re.search(r"^a +stopped .*last ended with status 4", text, re.M) and "healthy" not in text


@contextmanager
def web() -> Iterator[int]:
    """A server on this host, whose network the box shares: its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/good": 204, "/moved": 302, "/bad": 503}.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_http_and_tcp_need_nothing_in_the_image(crun: Box) -> None:
    times = {"interval": 300, "timeout": 500, "retries": 2}
    with web() as port, socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        quiet = silent.getsockname()[1]
        run(
            crun, 3,
            service("good", Health("http", port=port, path="/good", **times)),
            service("moved", Health("http", port=port, path="/moved", **times)),
            service("bad", Health("http", port=port, path="/bad", **times)),
            service("mute", Health("http", port=quiet, path="/", **times)),
            service("open", Health("tcp", port=quiet, **times)),
            service("closed", Health("tcp", port=closed.getsockname()[1], **times)),
        )  # fmt: skip
    states = {name: health(crun, name)[0]["health"] for name in ("good", "moved", "bad", "mute", "open", "closed")}
    assert states == {
        "good": "healthy", "moved": "healthy", "bad": "unhealthy", "mute": "unhealthy", "open": "healthy",
        "closed": "unhealthy",
    }  # fmt: skip
    assert health(crun, "bad")[0]["message"] == "it answered: HTTP/1.0 503 Service Unavailable"
    assert health(crun, "mute")[0]["message"] == "no answer in time"
    assert re.fullmatch(r"port \d+: Connection refused", health(crun, "closed")[0]["message"])
