"""`python -m tests.fuzz.guided [TARGET ...]`: mutate inputs, guided by the code that they reach. Needs atheris.

Prints what was reached, and each fault with its input as an expression of Python; the exit code is 1 if any. With
`--keep`, the inputs that reach something new are added to those in the repository.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import NamedTuple

from tests.fuzz import corpus
from tests.fuzz.targets import NAMES, load

ROOT = Path(__file__).parents[2]
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None      # some targets read files
HANGS_S = 60
MEMORY_MIB = 1_024
SHARES = 200            # of all inputs; each target has some of them
LONGEST_SHOWN = 500     # bytes of an input; a longer one is packed
_STATUS = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+)", re.MULTILINE)
_SLOWEST = re.compile(r"^slowest: (\d+) ms", re.MULTILINE)
_DONE = re.compile(r"^Done (\d+) runs", re.MULTILINE)
_CHATTER = ("#", "INFO", "WARNING", "\t", "slowest", "NEW_FUNC")


class Result(NamedTuple):
    """What came of a run. `fault` is empty, or tells what is wrong and with which input."""

    inputs: int
    branches: int       # of the code
    features: int       # branches, by how often an input took them, and operands that came closer to each other
    slowest_ms: int     # of processor time; 0 if no input took 10 ms
    fault: str

    def __str__(self) -> str:
        return (f"{self.inputs:,} inputs, {self.branches} branches, {self.features} features, "
                f"slowest {self.slowest_ms or 'under 10'} ms")


def fuzz(name: str, inputs: int, seed: int, folder: Path, seconds: int = 0) -> Result:
    """Run a target with so many inputs, at most so many seconds; 0 is no limit.

    Begins with the inputs in `folder`, and adds those that reach something new.
    """
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as temporary:
        faults = Path(temporary) / "faults"
        faults.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.instrumented", name, f"-runs={inputs}", f"-seed={seed}",
             f"-timeout={HANGS_S}", f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={faults}/",
             "-use_value_profile=1", f"-max_len={load(name).longest}", f"-max_total_time={seconds}",
             "-report_slow_units=3600", str(folder)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "TMPDIR": temporary})
        found = [path.read_bytes() for path in sorted(faults.iterdir())]
    status = _STATUS.findall(done.stdout) or [(0, 0, 0)]
    ran = _DONE.search(done.stdout)
    fault = ""
    if done.returncode or found or not ran:
        lines = [line for line in done.stdout.splitlines() if not line.startswith(_CHATTER)]
        told = ", ".join(map(expression, found)) or "unknown"
        fault = "\n".join([f"{name}: exit code {done.returncode}, input {told}", *lines[-40:]])
    return Result(int(ran[1] if ran else status[-1][0]), int(status[-1][1]), int(status[-1][2]),
                  max(map(int, _SLOWEST.findall(done.stdout)), default=0), fault)


def begin(name: str, folder: Path) -> None:
    """Write the seeds and the kept inputs of a target into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*load(name).seeds(), *corpus.read(name)]):
        (folder / f"begin-{number:04}").write_bytes(data)


def expression(data: bytes) -> str:
    """Return an expression of Python for an input."""
    if len(data) <= LONGEST_SHOWN:
        return repr(data)
    return f"zlib.decompress(base64.b85decode({base64.b85encode(zlib.compress(data))!r}))"


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Keep these inputs too, as far as they reach something new; return how many are kept."""
    from tests.fuzz.counting import fewest      # imports the broker's code, which is to be instrumented elsewhere
    target = load(name)
    seeds = list(target.seeds())
    kept = fewest(target.run, seeds, [*corpus.read(name), *inputs])
    corpus.write(name, kept)
    return len(kept)


def main() -> int:
    """Run the targets, each with its share of the inputs."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--inputs", type=int, default=200_000, help="for all targets together (default: 200,000)")
    parser.add_argument("--seconds", type=int, default=0, help="at most so many for each target")
    parser.add_argument("--seed", type=int, help="default: by chance")
    parser.add_argument("--corpus", type=Path, help="a directory with more inputs, to which new ones are added")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep what reaches something new in the repository")
    options = parser.parse_args()
    names = options.targets or NAMES
    for name in names:
        if name not in NAMES:
            parser.error(f"there is no target {name!r}: choose from {', '.join(NAMES)}")
    seed = SystemRandom().randrange(1, 1 << 31) if options.seed is None else options.seed
    total = sum(load(name).share for name in names)
    print(f"seed {seed}", flush=True)

    def run(name: str) -> bool:
        with tempfile.TemporaryDirectory() as made:
            folder = options.corpus / name if options.corpus else Path(made)
            begin(name, folder)
            begun = time.monotonic()
            result = fuzz(name, options.inputs * load(name).share // total, seed, folder, options.seconds)
            print(f"{name}: {result}; {time.monotonic() - begun:.0f} s", flush=True)
            if result.fault:
                print(result.fault, flush=True)
            elif options.keep:
                kept = keep(name, [path.read_bytes() for path in folder.iterdir()])
                print(f"{name}: {kept} inputs are kept", flush=True)
            return bool(result.fault)

    with ThreadPoolExecutor(options.processes) as pool:
        return int(any(list(pool.map(run, names))))


if __name__ == "__main__":
    sys.exit(main())
