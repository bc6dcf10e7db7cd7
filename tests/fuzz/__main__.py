"""`python -m tests.fuzz`: run sessions by hand. Prints each fault with its seed; the exit code is 1 if any."""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import Pool
from random import SystemRandom

from tests.fuzz.stage import play_all

CHUNK = 500


def play_from(seed: int) -> dict[int, str]:
    """Play a chunk of sessions."""
    return play_all(range(seed, seed + CHUNK))


def main() -> int:
    """Play as many as asked for, in as many processes."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, help="of the first session (default: by chance); the next has the next")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    first = SystemRandom().randrange(10 ** 9) if options.seed is None else options.seed
    print(f"sessions {first} to {first + options.sessions - 1}", flush=True)
    if options.sessions < CHUNK:
        faults = play_all(range(first, first + options.sessions))
        for seed, fault in faults.items():
            print(f"seed {seed}: {fault}")
        return int(bool(faults))
    begun, played, found = time.monotonic(), 0, 0
    with Pool(options.processes, maxtasksperchild=4) as pool:
        for faults in pool.imap_unordered(play_from, range(first, first + options.sessions, CHUNK)):
            played, found = played + CHUNK, found + len(faults)
            for seed, fault in faults.items():
                print(f"seed {seed}: {fault[:1_000]}", flush=True)
            if played % 10_000 == 0:
                print(f"{played} sessions, {found} faults, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{played} sessions, {found} faults")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
