"""What a daemon can be asked to do: the seam between whoever knows the rooms and the server of the socket.

A new command is a field here, a line in `server` (its path and the value of its request), a function in
`client`, and a section in docs/control.md.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tciafs.control.values import (
    CachedPage,
    CheckPlace,
    CheckTurn,
    Evicted,
    FailurePage,
    PrefetchTurn,
    SeriesPage,
    Status,
)

__all__ = ["Commands"]


@dataclass(frozen=True, slots=True)
class Commands:
    """All may raise TciafsError, which the command gets.

    `status` never waits, nor does `failures`, which takes the series UID behind which to go on ("": begin);
    `cached` takes a path and such a UID, `check` a series UID and how far it was read before; `series` takes
    a path and that of a series behind which to go on; `prefetch` takes paths of series, and the time (Unix
    seconds) since when nothing that was used makes room for them; `refresh` takes a path. `pin` has the
    series at a path kept (True) or not (False), `evict` takes what `cached` takes. `pause` has all downloads
    stand still (True) or go on (False), at once.
    """

    status: Callable[[], Status]
    failures: Callable[[str], FailurePage]
    cached: Callable[[str, str], Awaitable[CachedPage]]
    check: Callable[[str, CheckPlace], Awaitable[CheckTurn]]
    series: Callable[[str, tuple[str, ...]], Awaitable[SeriesPage]]
    prefetch: Callable[[Sequence[tuple[str, ...]], float], Awaitable[PrefetchTurn]]
    refresh: Callable[[str], Awaitable[None]]
    pin: Callable[[str, bool], Awaitable[None]]
    evict: Callable[[str, str], Awaitable[Evicted]]
    pause: Callable[[bool], None]
