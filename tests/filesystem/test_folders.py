"""Folders whose listing changes while they are being made."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tciafs.catalogue.answers import Answer
from tciafs.filesystem import folders as folders_module
from tciafs.filesystem.folders import Folder, Folders
from tciafs.filesystem.identities import Level
from tciafs.filesystem.sources import Source
from tciafs.model import Patient
from tciafs.naming import Naming
from tests.fakes import FakeArchive, make_series
from tests.filesystem.fakes import FakeCatalogue

FOREVER = 1e10
INODE, OTHER_INODE = 7, 8


class Moving(FakeCatalogue):
    """Each answer has one more patient, and something happens before the first is passed on."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__(FakeArchive(make_series()))
        self._happens: Callable[[], None] | None = happens
        self.asked = 0

    async def patients(self, collection: str) -> Answer[Patient]:
        self.asked += 1
        answer = Answer(tuple(Patient(collection, f"P{each}") for each in range(self.asked)), FOREVER)
        await trio.lowlevel.checkpoint()
        if self._happens is not None:
            self._happens()
            self._happens = None
        return answer


class World:
    """Folders, and a catalogue that does something to them while it answers."""

    def __init__(self, happens: Callable[[Folders], None]) -> None:
        self.folders = Folders(Naming.DESCRIPTIVE)
        self.catalogue = Moving(lambda: happens(self.folders))

    async def names(self) -> list[str]:
        folder = await self.folders.get(Source(self.catalogue), INODE, Level.COLLECTION, ("Lung",))
        return list(folder.names)


FORGETS: dict[str, Callable[[Folders], None]] = {
    "dropped": lambda folders: folders.drop(INODE),
    "all forgotten": lambda folders: folders.clear(),
}


def nothing_happens(_folders: Folders) -> None:
    pass


@pytest.mark.parametrize("forget", FORGETS.values(), ids=FORGETS)
async def test_what_was_dropped_while_it_was_asked_for_is_not_kept(forget: Callable[[Folders], None]) -> None:
    world = World(forget)
    assert await world.names() == ["P0"]
    assert await world.names() == ["P0", "P1"]
    assert await world.names() == ["P0", "P1"]
    assert world.catalogue.asked == 2


@pytest.mark.parametrize("forget", FORGETS.values(), ids=FORGETS)
async def test_what_was_dropped_while_it_was_named_is_not_kept(
    forget: Callable[[Folders], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, made_aside = World(nothing_happens), folders_module.made_aside

    async def made_meanwhile(*what: Any) -> Folder:
        folder = await made_aside(*what)
        monkeypatch.undo()
        forget(world.folders)
        return folder

    monkeypatch.setattr(folders_module, "made_aside", made_meanwhile)
    assert await world.names() == ["P0"]
    assert await world.names() == ["P0", "P1"]
    assert world.folders.peek(INODE) is not None


async def test_a_folder_is_kept_whatever_becomes_of_others_meanwhile() -> None:
    world = World(lambda folders: folders.drop(OTHER_INODE))
    assert await world.names() == await world.names() == ["P0"]
    assert world.catalogue.asked == 1


async def test_one_that_failed_leaves_nothing_behind() -> None:
    class Unlucky(Exception):
        pass

    def fail(_folders: Folders) -> None:
        raise Unlucky

    world = World(fail)
    with pytest.raises(Unlucky):
        await world.names()
    assert world.folders._under_way == set()
