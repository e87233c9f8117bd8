"""What every output is made from: the plan, its segments, and the way to encode them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from linuxkit.encode.compress import Codec
from linuxkit.outputs.encoder import Encoder
from linuxkit.plan.model import BuildPlan
from linuxkit.rootfs.assemble import assemble
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.kernel import Boot, boot_files
from linuxkit.rootfs.segment import Segment


@dataclass(frozen=True)
class Build:
    """One build. `codec` and `level` are for initrds; a level of None is the codec's default."""

    plan: BuildPlan
    content: Content
    encoder: Encoder
    codec: Codec = Codec.ZSTD
    level: int | None = None

    def segments(self, *, boot: bool) -> list[Segment]:
        """The root filesystem in parts; with the kernel under boot/ or without."""
        return assemble(self.plan, self.content, boot=boot)

    @cached_property
    def boot(self) -> Boot:
        """The kernel, its command line and microcode."""
        return boot_files(self.plan.kernel, self.content)
