"""Which request something is done for: a number that lines of the log carry, so that they can be joined.

A request of the kernel, or of a command, gets a number when it comes; tasks and threads that are started for
it inherit it. One that lasts longer than its request, a download that many wait for, keeps that of the first.
"""

from contextvars import ContextVar
from itertools import count

__all__ = ["begin", "current"]

_numbers = count(1)
_current = ContextVar("request", default=0)


def begin() -> None:
    """Give what the present task does from now on a number of its own."""
    _current.set(next(_numbers))


def current() -> int:
    """Return the number of the request for which something is done, 0 if it is for none."""
    return _current.get()
