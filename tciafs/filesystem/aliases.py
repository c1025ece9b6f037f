"""Untrue provisional names of images, and the images that they stand for once these are known.

Defined here and only here: how many series are kept resolved, and that a long one is resolved in a thread.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from tciafs.naming import resolve_aliases

if TYPE_CHECKING:
    from tciafs.store.layout import Layout

__all__ = ["Aliases"]

REMEMBERED_SERIES = 16
REMEMBERED_ALIASES = 200_000
"""Series and names that are kept resolved: programs open a list series by series."""

RESOLVED_INLINE = 2000
"""With more images the names are resolved in a thread: 91,980 take 90 ms, for which no reader should wait."""


class Aliases:
    """Untrue provisional names and the places they mean, resolved once for as many series as are in use."""

    def __init__(self) -> None:
        self._resolved: OrderedDict[tuple[str, str], Mapping[str, int]] = OrderedDict()
        self._resolving = trio.Lock()

    async def of(self, layout: "Layout") -> Mapping[str, int]:
        """Return them for one series; who asks meanwhile waits, and does not resolve them again."""
        key = (layout.series_uid, layout.version)
        async with self._resolving:
            if key not in self._resolved:
                self._resolved[key] = await _resolved(layout.images.names)
            self._resolved.move_to_end(key)
            while len(self._resolved) > 1 and self._is_too_much():
                self._resolved.popitem(last=False)
            return self._resolved[key]

    def _is_too_much(self) -> bool:
        names = sum(map(len, self._resolved.values()))
        return len(self._resolved) > REMEMBERED_SERIES or names > REMEMBERED_ALIASES


async def _resolved(names: Sequence[str]) -> Mapping[str, int]:
    if len(names) <= RESOLVED_INLINE:
        return resolve_aliases(names)
    return await trio.to_thread.run_sync(resolve_aliases, names)
