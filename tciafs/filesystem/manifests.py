"""Manifests that a command gives to a mount: taken in parts, kept, shown as views.

The kernel is told of each view that came, went or changed. Handed the views, the tree, and what tells the
kernel.
"""

import logging
from typing import TYPE_CHECKING

import trio

from tciafs.control.manifest_values import AddedManifest, AddManifest, KeptManifest, ManifestPage
from tciafs.errors import Misuse, TciafsError
from tciafs.filesystem.identities import Level, inode_of
from tciafs.filesystem.status import LONGEST_SENTENCE_BYTES, brief
from tciafs.hidden import BY_MANIFEST, VIEWS_FOLDER
from tciafs.naming import legal_name
from tciafs.selection.kept import MOST_SERIES
from tciafs.selection.manifests import Manifest, is_uid

if TYPE_CHECKING:
    from tciafs.filesystem.kernel_view import KernelView
    from tciafs.filesystem.tree import Tree
    from tciafs.selection.views import Views

__all__ = ["Manifests"]

log = logging.getLogger(__name__)

MOST_COMING = 8
PAGE_MANIFESTS = 50


class Manifests:
    """What commands do about manifests; `patience_s` is how long the archive may take to be asked."""

    def __init__(self, views: "Views", tree: "Tree", kernel: "KernelView", patience_s: float) -> None:
        self._views = views
        self._tree = tree
        self._kernel = kernel
        self._patience_s = patience_s
        self._coming: dict[str, list[str]] = {}

    async def add(self, part: AddManifest) -> AddedManifest | None:
        """Take a part of a manifest; with the last one keep it, and return what came of it.

        Raises Misuse for what is no manifest, or comes in a wrong order.
        """
        uids = self._coming.pop(part.name, []) if part.place else []
        if part.place != len(uids):
            raise Misuse("parts of this manifest are missing; add it again, and once at a time")
        if not all(map(is_uid, part.uids)):
            raise Misuse("a manifest names series by their UIDs")
        uids += part.uids
        if len(uids) > MOST_SERIES:
            raise Misuse(f"a manifest names at most {MOST_SERIES:,} series")
        if not part.is_whole:
            self._coming[part.name] = uids
            while len(self._coming) > MOST_COMING:
                del self._coming[next(iter(self._coming))]
            return None
        await self._views.add(Manifest(part.name, tuple(dict.fromkeys(uids))))
        self._tell(part.name)
        return await self._added(part.name)

    async def _added(self, name: str) -> AddedManifest:
        try:
            with trio.fail_after(self._patience_s):
                found = await self._views.found(name)
        except (TciafsError, trio.TooSlowError) as error:
            why = str(error) or "the archive did not answer in time"
            return AddedManifest(0, (f"where its series are is not known yet: {brief(why)}",))
        series = sum(len(uids) for patients in found.places.values() for uids in patients.values())
        remarks = list(found.remarks)
        if found.outside:
            remarks.append(f"{found.outside} of its series are not among those that this mount shows")
        return AddedManifest(series, tuple(brief(each, LONGEST_SENTENCE_BYTES) for each in remarks))

    def listed(self, after: str) -> ManifestPage:
        """Return some of the manifests, on from behind a name."""
        manifests = [each for each in self._views.manifests if each.name > after]
        page = tuple(KeptManifest(each.name, len(each.uids)) for each in manifests[:PAGE_MANIFESTS])
        return ManifestPage(page, more=len(manifests) > len(page))

    async def remove(self, name: str) -> None:
        """Drop a manifest. Raises NoSuchName."""
        await self._views.remove(name)
        self._tell(name)

    def _tell(self, name: str) -> None:
        """Have the kernel forget a view with all below it."""
        self._tree.folders.clear()
        kind = inode_of(Level.KIND, (VIEWS_FOLDER, BY_MANIFEST))
        self._kernel.note_name(kind, legal_name(name))
