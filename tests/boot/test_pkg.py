"""Packages in machines of their own: one that passes, one that doesn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.packages import Repository
from support.packages import repository as repository
from support.system import image_cache

pytestmark = pytest.mark.boot
FAILS = """\
kernel: {image: kit://kernel, cmdline: console=ttyS0}
init: [kit://init, kit://crun]
onboot:
  - {name: test, image: "@pkg:..", command: [/bin/sh, -c, "cat /etc/tool; exit 3"]}
"""
SCRIPT = "set -e\ngrep -q hello /etc/tool\ntest -e /test/data\n! test -e /bin/sh\ntouch /written\n"


def test_packages_are_judged_by_their_machines(repository: Repository, tmp_path: Path) -> None:
    repository.cache = image_cache()
    repository.put({
        "good/build.yml": "image: pkg-test-good\norg: test\nfiles: [{path: etc/tool, contents: hello}]\n",
        "good/test/test.sh": SCRIPT, "good/test/data": "",
        "bad/build.yml": "image: pkg-test-bad\norg: test\nbase: kit://busybox\n"
                         'files: [{path: etc/tool, contents: "bad news\\n"}]\n',
        "bad/test/fails.yml": FAILS,
    })  # fmt: skip
    built = repository.pkg("build", "--force", "--platforms", "linux/amd64", "good", "bad")
    assert "built test/pkg-test-good" in built.stderr
    done = repository.pkg("test", "--arch", "amd64", "--keep", str(tmp_path / "kept"), "good", "bad", status=1,
                          seconds=400)  # fmt: skip
    first, second, said = done.stdout.splitlines()
    assert first.startswith("passed good: test.sh (")
    assert second.startswith("failed bad: fails (")
    assert second.endswith("exit status 3")
    assert said == "  bad news"
    assert (tmp_path / "kept/pkg-test-bad/fails-initrd.img").exists()
