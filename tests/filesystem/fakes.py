"""A file system without a kernel: the core of a mount, built over an archive and a fetcher that are fakes.

`FakeCatalogue` answers from a fake archive without memory, with a freshness of one's choice. `running_core`
builds all rooms of a mount but the kernel's, the store and the catalogue being the real ones.
"""

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from tciafs.catalogue.catalogue import Answer, Catalogue, CatalogueConfig
from tciafs.catalogue.table import Question
from tciafs.filesystem.guard import Admits, Guard, ListingMode
from tciafs.filesystem.images import Images
from tciafs.filesystem.interrupts import Interrupts
from tciafs.filesystem.kernel_view import KernelView
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.operations import Operations, Presentation
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.tree import Tree
from tciafs.filesystem.walk_ahead import AheadConfig, WalkAhead
from tciafs.model import Collection, Patient, Series, Study
from tciafs.naming import Naming
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeArchive, FakeFetcher

__all__ = ["CALLER", "Contents", "Core", "FakeCatalogue", "context", "descend", "running_core"]

Contents = Mapping[str, Sequence[tuple[str, bytes]]]
"""By series UID, the images that arrive at once when the series is fetched."""

CALLER = 4_000_001
"""A process id above any that Linux gives."""


def context(pid: int = CALLER) -> Any:
    """Return what pyfuse3 tells a handler of who asks."""
    return SimpleNamespace(pid=pid, uid=1000, gid=1000, umask=0o22)


@dataclass
class FakeCatalogue:
    """The listings of an archive without memory, each good for `fresh_for_s` from now."""

    archive: FakeArchive
    fresh_for_s: float = 1e6

    def _answer(self, records: Iterable[Any]) -> Answer[Any]:
        return Answer(tuple(records), time.time() + self.fresh_for_s)

    async def collections(self) -> Answer[Collection]:
        return self._answer(await self.archive.collections())

    async def patients(self, collection: str) -> Answer[Patient]:
        return self._answer(await self.archive.patients(collection))

    def at_hand(self, question: Question) -> None:
        return None

    async def studies(self, collection: str, patient: str) -> Answer[Study]:
        return self._answer(await self.archive.studies(collection, patient))

    async def series(self, collection: str, patient: str) -> Answer[Series]:
        return self._answer(await self.archive.series(collection, patient))


@dataclass(frozen=True)
class Core:
    """All rooms of a mount but the kernel's."""

    archive: FakeArchive
    fetcher: FakeFetcher
    store: Store
    images: Images
    catalogue: Catalogue
    tree: Tree
    interrupts: Interrupts
    operations: Operations
    ahead: WalkAhead

    async def node(self, *names: str) -> Node:
        """Return the node at a path below the root, each step looked up once."""
        return await descend(self.tree, *names)

    async def revise(self, series: Series) -> None:
        """Let the archive say this of a series, and have it asked."""
        others = [each for each in self.archive.holdings if each.series_uid != series.series_uid]
        self.archive.holdings[:] = [*others, series]
        await self.catalogue.refresh(series.collection, series.patient_id)

    async def fetch(self, series: Series) -> None:
        """Have a series downloaded and published."""
        download = self.store.fetch(series)
        await download.over.wait()
        download.raise_failure()

    @property
    def fetched(self) -> list[str]:
        """The UIDs of the series whose download began, in that order."""
        return [transfer.series.series_uid for transfer in self.fetcher.transfers]


async def descend(tree: Tree, *names: str) -> Node:
    """Return the node at a path below the root, each step looked up once."""
    node = tree.root
    for name in names:
        node = tree.remember(node, await tree.child(node, name))
    return node


@asynccontextmanager
async def running_core(
    folder: Path,
    *series: Series,
    contents: Contents | None = None,
    mode: ListingMode = "auto",
    limit_bytes: int = 1_000_000,
    offline: bool = False,
    read_ahead: int = 0,
    crawlers: Sequence[str] = (),
    budgets: Admits | None = None,
) -> AsyncIterator[Core]:
    """Build all rooms but the kernel's; what is left open at the end is closed."""
    archive, fetcher = FakeArchive(*series), FakeFetcher(dict(contents or {}))
    config = StoreConfig(folder / "cache", limit_bytes=limit_bytes, offline=offline)
    listings = CatalogueConfig(folder / "listings", 1e6, offline)
    async with (
        Store.running(config, fetcher) as store,
        Catalogue.running(archive, listings) as catalogue,
        trio.open_nursery() as nursery,
    ):
        images, interrupts = Images(store), Interrupts()
        tree = Tree(Sources(catalogue), images, Naming.DESCRIPTIVE)
        view = KernelView(tree, images, Naming.DESCRIPTIVE, lambda *_: None, lambda _: None)
        catalogue.on_replaced = view.note
        presentation = Presentation(uid=1000, gid=100, umask=0o022)
        guard = Guard(mode, crawlers, budgets, names=lambda _pid: ("program",))
        ahead = WalkAhead(tree, store, guard, AheadConfig(read_ahead, limit_bytes // 2))
        nursery.start_soon(ahead.run)
        operations = Operations(tree, images, store, guard, ahead, interrupts, presentation)
        nursery.start_soon(interrupts.run)
        try:
            yield Core(archive, fetcher, store, images, catalogue, tree, interrupts, operations, ahead)
        finally:
            operations.close()
            nursery.cancel_scope.cancel()
