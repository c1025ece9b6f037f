"""Where the folders of a mount come from: the listings of all that it shows, or those of a view of it.

A source is listings and what the identities of its folders begin with; which one a node belongs to is told by
the top that it lies below. Handed the listings, and the views.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tciafs.errors import NoSuchName
from tciafs.filesystem.identities import ROOT_INODE, Level, Whose, inode_of
from tciafs.filesystem.nodes import Node
from tciafs.hidden import VIEWS_FOLDER, View

if TYPE_CHECKING:
    from tciafs.catalogue.answers import Answer, Listings
    from tciafs.model import Value

__all__ = ["UNLISTED_COLLECTIONS", "Source", "Sources", "Views"]


UNLISTED_COLLECTIONS = -ROOT_INODE
"""Stands for an inode where folders are kept: the collections in the folder of views, which lists others."""


class Views(Protocol):
    """The views of what a mount shows. Its questions raise TciafsError."""

    async def kinds(self) -> "Answer[Value]":
        """Return the kinds of views."""
        ...

    async def words(self, kind: str) -> "Answer[Value]":
        """Return which views of a kind there are to be listed."""
        ...

    def finds(self, view: View) -> bool:
        """Return whether there is a view that no listing shows."""
        ...

    def listings(self, view: View) -> "Listings":
        """Return what a view shows. Raises NoSuchName."""
        ...

    def has_metadata(self, view: View) -> bool:
        """Return whether a view has a metadata.csv, as a mount of a manifest has."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Listings, what the identities of their folders begin with, and whether the top has a metadata.csv."""

    listings: Any
    prefix: Whose = ()
    has_metadata: bool = False

    def inode(self, level: Level, whose: Whose) -> int:
        """Return the inode number of a folder above the images, of the top for no keys at all."""
        if whose:
            return inode_of(level, self.prefix + whose)
        if not self.prefix:
            return ROOT_INODE
        return inode_of(Level.VIEWS if len(self.prefix) == 1 else Level.VIEW, self.prefix)


class Sources:
    """All sources of a mount; `main` is that of its root. `views` None: it has no views."""

    def __init__(
        self, listings: "Listings", views: Views | None = None, *, has_metadata: bool = False
    ) -> None:
        self.main = Source(listings, (), has_metadata)
        self.views = views
        self._words = Source(views, (VIEWS_FOLDER,))
        self.again = Source(listings, (VIEWS_FOLDER,))
        """All that the mount shows, in the folder of views."""

    def of(self, node: Node) -> Source:
        """Return what a node and all below it come from. Raises NoSuchName for a view that is gone."""
        top = node.top
        if top.level is Level.ROOT:
            return self.main
        if top.level is Level.VIEWS:
            return self._words if node.level is Level.KIND or node is top else self.again
        assert top.parent is not None
        return self.of_view((top.parent.key, top.key))

    def of_view(self, view: View) -> Source:
        """Return what a view shows. Raises NoSuchName."""
        if self.views is None:
            raise NoSuchName("this mount has no views")
        listings = self.views.listings(view)
        return Source(listings, (VIEWS_FOLDER, *view), self.views.has_metadata(view))
