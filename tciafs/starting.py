"""Quick starts: what each of our processes imports first, so that it imports less and sooner.

httpx imports its own command line, and with it rich, pygments and click, when they can be imported; it does
without when they cannot. So does httpcore with HTTP/2, which we ask nobody for; h2 is there for the server of
the control socket. No command, daemon or worker of ours uses these: the first is a tenth of a daemon's start
and a sixth of a worker's, in time and in memory, the second 25 ms of either.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_collector"]

# None is how to say that a module cannot be imported; see "The import system" of Python's reference.
for _not_ours in ("httpx._main", "httpcore._async.http2", "httpcore._sync.http2"):
    sys.modules.setdefault(_not_ours, None)  # type: ignore[arg-type]


@contextmanager
def without_collector() -> Iterator[None]:
    """Import in this block: what a module makes stays, so the collector would look for nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
