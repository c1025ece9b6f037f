"""Asking again: which question a path of the tree stands for, and that the tree believes the answer."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio

from tciafs.errors import NoSuchName, Unreachable
from tciafs.filesystem.paths import Paths
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.tree import Tree
from tciafs.naming import Naming
from tests.fakes import FakeArchive, make_series
from tests.filesystem.fakes import FakeCatalogue, descend

Asked = list[tuple[str | None, str | None]]


@dataclass
class Refreshed(FakeCatalogue):
    """Notes what was to be asked again, lets somebody look `meanwhile`, and fails by plan."""

    refreshed: Asked = field(default_factory=list)
    failure: Exception | None = None
    meanwhile: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def refresh(self, collection: str | None, patient: str | None) -> None:
        self.refreshed.append((collection, patient))
        await self.meanwhile()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def catalogue() -> Refreshed:
    return Refreshed(FakeArchive(make_series()))


@pytest.fixture
def tree(catalogue: Refreshed) -> Tree:
    return Tree(Sources(cast(Any, catalogue)), cast(Any, None), Naming.CLASSIC)


async def test_a_folder_is_asked_for_again_when_the_clock_was_set_back(
    tree: Tree, catalogue: Refreshed, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 1e9)
    for _ in range(2):
        await tree.listing(tree.root)
    assert catalogue.archive.asked == [("collections",)]
    monkeypatch.setattr("time.time", lambda: now)
    await tree.listing(tree.root)
    assert catalogue.archive.asked == [("collections",)] * 2


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ("/", (None, None)),
        ("", (None, None)),
        ("/Lung", ("Lung", None)),
        ("/Lung/", ("Lung", None)),
        ("/Lung/LICENSE", ("Lung", None)),
        ("/Lung/P1", ("Lung", "P1")),
        ("/Lung/P1/1.2", ("Lung", "P1")),
        ("/Lung/P1/1.2/1.2.3/1-1.dcm", ("Lung", "P1")),
        ("//Lung//P1//1.2", ("Lung", "P1")),
    ],
)
async def test_a_path_stands_for_the_listing_at_it(
    path: str, question: tuple[str | None, str | None], tree: Tree, catalogue: Refreshed
) -> None:
    await Paths(tree).refresh(path)
    assert (catalogue.refreshed, len(tree)) == ([question], 1)


@pytest.mark.parametrize("path", ["/Brain", "/Brain/P1", "/LICENSE", "/Lung/P2", "/Lung/P2/1.2", "/.."])
async def test_a_path_that_is_not_there_is_no_question(path: str, tree: Tree, catalogue: Refreshed) -> None:
    with pytest.raises(NoSuchName, match="is not in /"):
        await Paths(tree).refresh(path)
    assert catalogue.refreshed == []


@pytest.mark.parametrize("path", ["/Lung/P1/1.9", "/Lung/P1/1.9/1.2.3", "/Lung/P1/1.2/1.2.9/1-1.dcm"])
async def test_what_is_below_a_patient_is_asked_for_before_it_is_said_not_to_be_there(
    path: str, tree: Tree, catalogue: Refreshed
) -> None:
    with pytest.raises(NoSuchName, match=r"'1.*9' is not in /Lung/P1"):
        await Paths(tree).refresh(path)
    assert catalogue.refreshed == [("Lung", "P1")]


async def test_the_tree_asks_the_catalogue_again_after_a_refresh(tree: Tree, catalogue: Refreshed) -> None:
    await descend(tree, "Lung", "P1", "1.2", "1.2.3")
    asked = len(catalogue.archive.asked)
    await descend(tree, "Lung", "P1", "1.2", "1.2.3")
    assert len(catalogue.archive.asked) == asked
    await Paths(tree).refresh("/")
    await descend(tree, "Lung", "P1", "1.2", "1.2.3")
    assert len(catalogue.archive.asked) == 2 * asked


async def test_who_looks_while_the_archive_is_asked_again_does_not_make_an_old_folder_fresh(
    tree: Tree, catalogue: Refreshed
) -> None:
    async def looks() -> None:
        await descend(tree, "Lung", "P1", "1.2")

    catalogue.meanwhile = looks
    await Paths(tree).refresh("/Lung")
    catalogue.archive.asked.clear()
    await descend(tree, "Lung", "P1")
    assert catalogue.archive.asked == [("collections",), ("patients", "Lung")]


async def test_what_the_archive_answers_is_raised(tree: Tree, catalogue: Refreshed) -> None:
    catalogue.failure = Unreachable("no route")
    with pytest.raises(Unreachable, match="no route"):
        await Paths(tree).refresh("/Lung")
