"""Quick starts: what each of our processes imports first, so that it imports less and sooner.

httpx imports its own command line, and with it rich, pygments and click, when they can be imported; it does
without when they cannot. No command, daemon or worker of ours uses that: it is a tenth of a daemon's start
and a sixth of a worker's, in time and in memory.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_collector"]

# None is how to say that a module cannot be imported; see "The import system" of Python's reference.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


@contextmanager
def without_collector() -> Iterator[None]:
    """Import in this block: what a module makes stays, so the collector would look for nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
