"""What a mount needs once somebody gives it a command: who serves its socket, and what is done for each.

Loaded when the first command comes. Part of the composition root: handed all rooms, it builds what only
commands ask for.
"""

import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tciafs.control.commands import Commands
from tciafs.control.server import serve
from tciafs.filesystem.choosing import choice_in_words
from tciafs.filesystem.commands import commands_of
from tciafs.filesystem.known import Known
from tciafs.filesystem.manifests import Manifests
from tciafs.filesystem.prefetching import Prefetching
from tciafs.filesystem.status import About, Rooms
from tciafs.naming import Naming
from tciafs.settings import Settings

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Catalogue
    from tciafs.filesystem.mount import Begun, FileSystem, Supply
    from tciafs.model import Series
    from tciafs.selection.selection import Selection

__all__ = ["obey"]

COMMAND_MARGIN_S = 5.0
"""How much longer than one listing a command may take that asks the archive."""


async def obey(
    listener: socket.socket, settings: Settings, begun: "Begun", supply: "Supply", files: "FileSystem"
) -> None:
    """Serve the commands that come to a socket, until cancelled."""
    await serve(listener, _commands(settings, begun, supply, files))


def _commands(settings: Settings, begun: "Begun", supply: "Supply", files: "FileSystem") -> Commands:
    """Return what this mount does when a command asks for it."""
    about = About(
        mountpoint=str(begun.place),
        archive=begun.archive_url,
        mounted_at=begun.at,
        patience_s=settings.listing_timeout + COMMAND_MARGIN_S,
        login=supply.session,
    )
    store, tree = supply.store, files.tree
    chosen = partial(_said_of, choice_in_words(settings), supply.selection)
    rooms = Rooms(
        *(store, tree, supply.catalogue, supply.guard, supply.budgets, chosen, files.images),
        remark=lambda: "; ".join(filter(None, (supply.table.remark, supply.archive.remark))),
    )
    prefetching = Prefetching(tree, store, partial(_named, supply.catalogue), settings.downloads)
    known = Known(supply.never_asking, Naming(settings.naming), store.holdings, store.state)
    manifests = Manifests(supply.views, tree, files.view, about.patience_s)
    return commands_of(about, rooms, tree, prefetching, known, manifests, supply.usage)


def _said_of(words: str, selection: "Selection") -> tuple[str, ...]:
    return (words, *selection.remarks) if words else ()


async def _named(catalogue: "Catalogue", series_uids: Sequence[str]) -> "Sequence[Series]":
    return (await catalogue.answer(("named", *series_uids))).records
