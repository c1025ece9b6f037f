"""What a mount does when a command asks for it: each field of `control.Commands`, in terms of the rooms.

Handed the rooms; knows nothing of sockets.
"""

from functools import partial
from typing import TYPE_CHECKING

import trio

from tciafs.control.commands import Commands
from tciafs.errors import DeadlinePassed
from tciafs.filesystem.status import About, Rooms, failures_after, snapshot

if TYPE_CHECKING:
    from tciafs.filesystem.tree import Tree

__all__ = ["commands_of"]


def commands_of(about: About, rooms: Rooms, tree: "Tree") -> Commands:
    """Return what a mount does when it is asked to by a command."""

    async def refresh(path: str) -> None:
        with trio.move_on_after(about.patience_s) as asking:
            whose = await tree.refresh(path)
            rooms.store.failures.forget(lambda failed: failed.path[: len(whose)] == whose)
        if asking.cancelled_caught:
            raise DeadlinePassed(f"the archive did not list {path} within {about.patience_s:g} s")

    return Commands(
        status=partial(snapshot, about, rooms),
        failures=partial(failures_after, rooms.store),
        refresh=refresh,
    )
