"""What a daemon can be asked to do: the seam between whoever knows the rooms and the server of the socket.

A new command is a field here, a line in `server` (its path and the value of its request), a function in
`client`, and a section in docs/control.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tciafs.control.values import Status

__all__ = ["Commands"]


@dataclass(frozen=True, slots=True)
class Commands:
    """All may raise TciafsError, which the command gets. `status` never waits; `refresh` takes a path."""

    status: Callable[[], Status]
    refresh: Callable[[str], Awaitable[None]]
