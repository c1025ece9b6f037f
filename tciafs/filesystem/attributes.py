"""Extended attributes of what is in a mount: which there are, and their values.

Answers come from what is known, and from the header of an image that is here: none of them asks the archive
for more than a folder that is shown took, and none starts a download. Handed the tree, the store and the
guard; `provenance` has the names.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from tciafs.filesystem.folders import Record
from tciafs.filesystem.identities import Level
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.provenance import (
    COSTS,
    SOP_INSTANCE_UID,
    sop_instance_uid,
    xattrs_of_costs,
    xattrs_of_failure,
    xattrs_of_record,
    xattrs_of_state,
)
from tciafs.model import Series

if TYPE_CHECKING:
    from tciafs.filesystem.guard import Guard
    from tciafs.filesystem.tree import Tree
    from tciafs.store.store import Store

__all__ = ["ExtendedAttributes"]

SUMMED = (Level.COLLECTION, Level.PATIENT, Level.STUDY)
SUM_KEPT_S = 2.0
"""Who asks for the attributes of a folder asks for each of them alone."""


class ExtendedAttributes:
    """The extended attributes of all nodes. Both methods raise NoSuchName, and what the archive raises."""

    def __init__(self, tree: "Tree", store: "Store", guard: "Guard") -> None:
        self._tree = tree
        self._store = store
        self._guard = guard
        self._summed: tuple[int, float, Mapping[str, str]] = (0, 0.0, {})

    async def names(self, node: Node) -> list[str]:
        """Return the names of the attributes that a node has."""
        record = await self._tree.record(node)
        names = [*self._of_record(node, record), *await self._costs(node)]
        if node.level is Level.IMAGE and self._is_local_image(record, node.key):
            names.append(SOP_INSTANCE_UID)
        return names

    async def value(self, node: Node, name: str) -> str | None:
        """Return the value of an attribute, None where a node has none of that name."""
        record = await self._tree.record(node)
        if name == SOP_INSTANCE_UID:
            return await self._sop_instance_uid(node, record)
        if name in COSTS:
            return (await self._costs(node)).get(name)
        return self._of_record(node, record).get(name)

    def _is_local_image(self, series: Record | None, name: str) -> bool:
        if not isinstance(series, Series) or self._store.state(series) != "local":
            return False
        known = self._store.peek(series)
        return known is not None and known.layout.annotations.find(name) is None

    def _of_record(self, node: Node, record: Record | None) -> Mapping[str, str]:
        attributes = {} if record is None else dict(xattrs_of_record(record))
        if isinstance(record, Series):
            refused = self._guard.why_refused(record)
            attributes.update(xattrs_of_state(self._store, record, refused))
        elif failure := self._tree.folders.failure_of(node.inode):
            attributes.update(xattrs_of_failure(failure))
        return attributes

    async def _costs(self, node: Node) -> Mapping[str, str]:
        """Return what lies below a folder, as far as that has been listed."""
        if node.level not in SUMMED:
            return {}
        inode, until, costs = self._summed
        if inode != node.inode or trio.current_time() >= until:
            costs = await self._summed_up(node)
            self._summed = (node.inode, trio.current_time() + SUM_KEPT_S, costs)
        return costs

    async def _summed_up(self, node: Node) -> Mapping[str, str]:
        listings = self._tree.sources.of(node).listings
        known = local = await listings.known_sum(*node.whose)
        if known is not None:
            here = await self._store.holdings.series_below(node.whose)
            # A view or a selection shows a part of what is below that place.
            local = await listings.known_sum(*node.whose, wants=lambda each: each.series_uid in here)
        return {} if known is None or local is None else xattrs_of_costs(known, local)

    async def _sop_instance_uid(self, node: Node, record: Record | None) -> str | None:
        image = None
        if node.level is Level.IMAGE and isinstance(record, Series):
            image = self._store.open_local(record, node.key)
        if image is None:
            return None
        try:
            return await trio.to_thread.run_sync(sop_instance_uid, image)
        finally:
            image.close()
