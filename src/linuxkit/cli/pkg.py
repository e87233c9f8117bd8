"""linuxkit pkg: the group, with all its commands."""

from __future__ import annotations

from linuxkit.cli import pkg_build as pkg_build
from linuxkit.cli import pkg_registry as pkg_registry
from linuxkit.cli import pkg_test as pkg_test
from linuxkit.cli.pkg_common import pkg as pkg
