"""What a daemon can be asked to do: the seam between whoever knows the rooms and the server of the socket.

A new command is a field here, a line in `server` (its path and the value of its request), a function in
`client`, and a section in docs/control.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tciafs.control.values import CachedPage, CheckPlace, CheckTurn, FailurePage, Status

__all__ = ["Commands"]


@dataclass(frozen=True, slots=True)
class Commands:
    """All may raise TciafsError, which the command gets.

    `status` never waits, nor does `failures`, which takes the series UID behind which to go on ("": begin);
    `cached` takes a path and such a UID, `check` a series UID and how far it was read before; `refresh` takes
    a path. `pause` has all downloads stand still (True) or go on (False), at once.
    """

    status: Callable[[], Status]
    failures: Callable[[str], FailurePage]
    cached: Callable[[str, str], Awaitable[CachedPage]]
    check: Callable[[str, CheckPlace], Awaitable[CheckTurn]]
    refresh: Callable[[str], Awaitable[None]]
    pause: Callable[[bool], None]
