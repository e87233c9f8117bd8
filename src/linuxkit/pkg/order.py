"""Which packages need which others, and work in that order: side by side where nothing has to wait."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from linuxkit.errors import InputError

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def in_order(needs: Mapping[Key, Set[Key]], work: Callable[[Key], Result], threads: int) -> dict[Key, Result]:
    """Do the work for every key, for what a key needs before the key itself.

    Args:
        needs: key → the keys that it needs, all of them keys of the mapping.
        threads: most works at a time.

    Raises:
        InputError: keys need each other in a circle.
        Exception: what a work raised first; what needs it is not begun, what runs is let finish.
    """
    sorter: TopologicalSorter[Key] = TopologicalSorter({key: sorted(below, key=str) for key, below in needs.items()})
    try:
        sorter.prepare()
    except CycleError as e:
        circle = " → ".join(str(key) for key in e.args[1])
        raise InputError(f"packages need each other in a circle: {circle}", hint="take one of them out") from None
    done: dict[Key, Result] = {}
    failed: BaseException | None = None
    with ThreadPoolExecutor(max(1, threads)) as pool:
        running: dict[Future[Result], Key] = {}
        while sorter.is_active():
            if failed is None:
                running |= {pool.submit(work, key): key for key in sorter.get_ready()}
            if not running:
                break
            for task in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(task)
                try:
                    done[key] = task.result()
                    sorter.done(key)
                except BaseException as e:
                    failed = failed or e
                    for other in running:
                        other.cancel()
                    running = {task: key for task, key in running.items() if not task.cancelled()}
    if failed is not None:
        raise failed
    return done
