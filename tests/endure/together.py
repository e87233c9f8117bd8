"""Two builders and a `cache gc` on one cache: nobody takes from another what it needs."""

from __future__ import annotations

import random

from endure.scene import Summary, kill, scene


def run(count: int, seed: int) -> Summary:
    summary, order = Summary("together", seed), random.Random(seed)
    with scene() as here:
        for number in range(count):
            if number % 25 == 0:
                here.renew()
            formats = order.sample(["kernel+initrd", "tar", "kernel+squashfs", "kernel+erofs", "docker"], 2)
            work = [["build", "--offline", "--no-preflight", "--dir", f"out{n}", "--format", name, "x.yml"]
                    for n, name in enumerate(formats)]  # fmt: skip
            for n in (0, 1):
                (here.folder / f"out{n}").mkdir(exist_ok=True)
            children = [here.start(words) for words in (*work, ["cache", "gc", "--min-age", "0"])]
            for child, words in zip(children, (*work, ["cache", "gc"]), strict=True):
                said, _ = child.communicate(timeout=300)
                if child.returncode:
                    summary.fault(f"round {number}, {' '.join(words)}: {said[-400:]}")
            for child in children:
                if child.poll() is None:
                    kill(child)
            summary.add("rounds")
        status, said = here.run(["cache", "verify"])
        if status:
            summary.fault(f"cache verify: {said[-400:]}")
    return summary
