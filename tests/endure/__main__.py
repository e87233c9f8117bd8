"""The long runs: PYTHONPATH=tests python -m endure [NAME...] [--count N] [--seed N]

A summary line each, for docs/reliability.md. Exit status 1 when a fault was found.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys

#: name → how often, unless --count says otherwise
RUNS = {"kills": 1000, "disks": 200, "together": 500, "boots": 200, "cuts": 100}


def main() -> int:
    parser = argparse.ArgumentParser(prog="endure", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--count", type=int, default=0, help="how often; by default " + str(RUNS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    if unknown := set(given.names) - RUNS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    bad = False
    for name in given.names or RUNS:
        summary = importlib.import_module(f"endure.{name}").run(given.count or RUNS[name], given.seed)
        print(summary.line(), flush=True)
        bad = bad or bool(summary.faults)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
