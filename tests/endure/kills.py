"""`kill -9` at random moments of all kinds of work: the cache stays whole, the next run works, nothing stays behind."""

from __future__ import annotations

import random
import time

from endure.scene import Scene, Summary, kill, scene

ROUND = 20  # kills between two looks


def run(count: int, seed: int) -> Summary:
    summary, order = Summary("kills", seed), random.Random(seed)
    with scene() as here:
        lengths: dict[str, float] = {}
        for words in here.commands(0):
            began = time.monotonic()
            status, said = here.run(words)
            lengths[words[0] + words[1]] = time.monotonic() - began
            if status:
                summary.fault(f"{' '.join(words)} fails by itself: {said[-300:]}")
        while summary.counts.get("kills", 0) < count and not summary.faults:
            here.renew()
            for _ in range(ROUND):
                words = order.choice(here.commands(order.randrange(5)))
                child = here.start(words)
                time.sleep(order.uniform(0, lengths[words[0] + words[1]]))
                finished = child.poll() is not None
                kill(child)
                summary.add("finished" if finished else "kills")
            look(here, summary)
    return summary


def look(here: Scene, summary: Summary) -> None:
    """What is left of a round."""
    status, said = here.run(["cache", "verify"])
    if status:
        summary.fault(f"cache verify: {said[-500:]}")
    for words in here.commands(9):
        status, said = here.run(words)
        summary.add("runs after kills")
        if status:
            summary.fault(f"{' '.join(words)}: {said[-500:]}")
    here.run(["cache", "gc", "--min-age", "0"])
    for name in here.left_over():
        summary.fault(f"{name} stays")
