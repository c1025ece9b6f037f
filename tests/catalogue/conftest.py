"""What the tests of the catalogue share: an archive of one series, a wall clock to move, a catalogue."""

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig, Lister
from tciafs.catalogue.table import Question
from tciafs.model import Collection
from tests.fakes import FakeArchive, make_series

SERIES = replace(make_series(), number=2.5, released=dt.date(2024, 2, 29), description="Ü \u65e5")
TTL_S = 100.0
LUNG = Collection("Lung")


class WallClock:
    """Stands in for `time.time`."""

    def __init__(self) -> None:
        self.now = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC).timestamp()

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr("time.time", clock.time)
    return clock


@pytest.fixture
def config(tmp_path: Path) -> CatalogueConfig:
    return CatalogueConfig(tmp_path / "cache" / "listings", TTL_S)


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive(SERIES)


@asynccontextmanager
async def opened(
    archive: FakeArchive, config: CatalogueConfig, lister: Lister | None = None
) -> AsyncIterator[Catalogue]:
    """A catalogue; on leaving, what is still to be written is written."""
    async with Catalogue.running(archive, config, lister=lister) as catalogue:
        yield catalogue
        while catalogue._nursery.child_tasks:
            await trio.lowlevel.checkpoint()


@pytest.fixture
async def catalogue(archive: FakeArchive, config: CatalogueConfig) -> AsyncIterator[Catalogue]:
    async with opened(archive, config) as catalogue:
        yield catalogue


STEPS = 10
"""More than a question takes in the table's thread, one after the other."""


async def refreshed(catalogue: Catalogue) -> None:
    """Return when what goes on behind has come to its end, or to a wait for the archive."""
    for _ in range(STEPS):
        await wait_all_tasks_blocked()
        await catalogue._remembered._thread.run(int)  # behind all that is in the thread already


PAGE_BYTES = 4096
LEAF_OF_A_TABLE = b"\x0d"


def damage(database: Path, question: Question) -> None:
    """Spoil the page that holds a row of a table which nobody has open."""
    key = "".join(f"{len(text)}:{text}" for text in question).encode()
    with database.open("r+b") as file:
        pages = list(iter(lambda: file.read(PAGE_BYTES), b""))
        spoilt = [n for n, page in enumerate(pages) if page.startswith(LEAF_OF_A_TABLE) and key in page]
        assert spoilt, "there is no such row"
        for number in spoilt:
            file.seek(number * PAGE_BYTES)
            file.write(b"\xff" * PAGE_BYTES)
