"""`python -m tests.fuzz [--seconds N] [TARGET ...]`: look for bytes that a target does not stand, one by one.

Each target runs under atheris in a process of its own, which ends at the first failure and leaves its bytes
as .fuzz/TARGET-crash-...; .fuzz/TARGET/ holds what it has learnt, for the next run. The exit code is 1 if a
target has failed; its bytes belong into tests/fuzz/found, with the fix.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import SEEDS, TARGETS

PLACE = Path(".fuzz")
MOST_MEMORY_MB = 1024
SLOWEST_INPUT_S = 10


def main() -> int:
    """Fuzz the targets one after the other; return 1 if one has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: {' '.join(TARGETS)}")
    options = parser.parse_args()
    failed = [name for name in options.targets or TARGETS if not _stands(name, options.seconds)]
    print(f"{len(failed)} failed{': ' if failed else ''}{' '.join(failed)}")
    return 1 if failed else 0


def _stands(name: str, seconds: int) -> bool:
    """Fuzz a target in a process of its own; return whether it found nothing."""
    place = PLACE / name
    place.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (place / f"seed-{number}").write_bytes(seed)
    print(f"{name}: {seconds} s", flush=True)
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(place)]
    command += [f"-max_total_time={seconds}", f"-artifact_prefix={PLACE}/{name}-"]
    command += [f"-rss_limit_mb={MOST_MEMORY_MB}", f"-timeout={SLOWEST_INPUT_S}", "-verbosity=0"]
    done = subprocess.run(command, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
