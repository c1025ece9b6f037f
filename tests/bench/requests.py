"""How many requests it costs to look at a collection of 1,000 patients from top to bottom, nothing cached."""

import sys
from collections import Counter
from collections.abc import Iterator

from tests.bench.comparing import Line
from tests.bench.parts import Options, Part
from tests.bench.stage import run, tciafs_mounted
from tests.sample.running import running_sample

__all__ = ["REQUESTS", "by_endpoint"]

PATIENTS = 1000
GOAL = 5
OS_WALK = "import os, sys; list(os.walk(sys.argv[1]))"
COMMANDS = {
    "find -maxdepth 4": ("find", ".", "-maxdepth", "4"),
    "du -a": ("du", "-a", "."),
    "ls -lR": ("ls", "-lR", "."),
    "os.walk": (sys.executable, "-c", OS_WALK, "."),
}


def _requests(options: Options) -> Iterator[Line]:
    """Count what the archive is asked, without the list of collections, which belongs to the mount."""
    with running_sample("--many-patients", str(PATIENTS)) as sample:
        for name, command in COMMANDS.items():
            with tciafs_mounted(sample.url, options.scratch / name.replace(" ", "")) as mount:
                words = [str(mount.path / "MANY") if word == "." else word for word in command]
                sample.forget_requests()
                run(*words)
                asked = sample.tally()
            del asked["getCollectionValues"]
            total = asked.total()
            yield Line(
                f"requests of a cold {name}, {PATIENTS:,} patients",
                f"{total:,}: {by_endpoint(asked)}",
                f"goal: at most {GOAL}",
                f"{total / GOAL:.2f} x the goal",
            )


def by_endpoint(asked: Counter[str]) -> str:
    """Return counts in words, the most frequent first."""
    return ", ".join(f"{count:,} {name}" for name, count in asked.most_common()) or "none"


REQUESTS = Part("requests", "requests that a cold walk of 1,000 patients costs", (), _requests)
