"""What the kernel is told of a listing that changed: the names that are stale, and no others."""

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from tciafs.catalogue.answers import Answer
from tciafs.errors import NoSuchName
from tciafs.filesystem.identities import ROOT_INODE, Level
from tciafs.filesystem.kernel_view import KernelView
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.tree import Tree
from tciafs.model import Collection, Patient, Series, Study, Value
from tciafs.naming import Naming
from tests.fakes import FakeArchive
from tests.filesystem.fakes import FakeCatalogue, descend

CT = Series("Lung", "P1", "1.2.3.11111", "1.2.3.4.22222", "CT", 2, "Axial", 2, 50, dt.date(2021, 6, 1))
STUDY = ("Lung", "P1", "NA-NA-11111")
SERIES = (*STUDY, "2.000000-Axial-22222")


class FakeImages:
    """A series was once shown with the images 1-1.dcm and 1-2.dcm."""

    def names_once_shown(self, series: Series) -> Iterator[str]:
        assert series.image_count == 2, "the series as it was"
        assert trio.lowlevel.current_task(), "the store is of the loop's thread"
        return self._names()

    def _names(self) -> Iterator[str]:
        with pytest.raises(RuntimeError):  # there may be millions: not in the loop
            trio.lowlevel.current_task()
        yield from ("1-1.dcm", "1-2.dcm")


@dataclass
class Kernel:
    """Records what it is told, and where: in which thread is not the loop's."""

    tree: Tree
    view: KernelView = field(init=False)
    entries: list[tuple[int, str]] = field(default_factory=list)
    attributes: list[int] = field(default_factory=list)

    def forget_entry(self, folder: int, name: str) -> None:
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()
        self.entries.append((folder, name))

    async def told(self, question: tuple[str, ...], before: list[Any], after: list[Any]) -> None:
        self.view.note(question, before, after)
        while self.view._notes.statistics().current_buffer_used:
            await self.view.tell_next()


@pytest.fixture
def kernel() -> Kernel:
    catalogue: Any = FakeCatalogue(FakeArchive(CT))
    images: Any = FakeImages()
    kernel = Kernel(Tree(Sources(catalogue), images, Naming.DESCRIPTIVE))
    kernel.view = KernelView(
        kernel.tree, images, Naming.DESCRIPTIVE, kernel.forget_entry, kernel.attributes.append
    )
    return kernel


async def test_names_that_went_and_names_that_came_are_stale_and_others_are_not(kernel: Kernel) -> None:
    before = [Collection("Lung"), Collection("Brain")]
    await kernel.told(("collections",), before, [Collection("Lung"), Collection("Heart")])
    assert kernel.entries == [(ROOT_INODE, "Brain"), (ROOT_INODE, "Heart")]
    assert kernel.attributes == []


async def test_nothing_is_told_of_folders_that_the_kernel_does_not_know(kernel: Kernel) -> None:
    await kernel.told(("patients", "Lung"), [Patient("Lung", "P1")], [])
    await kernel.told(("series", "Lung", "P1"), [CT], [])
    assert kernel.entries == []


async def test_a_study_that_is_described_anew_is_stale_under_both_names(kernel: Kernel) -> None:
    patient = await descend(kernel.tree, "Lung", "P1")
    study = Study("Lung", "P1", "1.2.3.11111")
    await kernel.told(("studies", "Lung", "P1"), [study], [replace(study, description="Chest")])
    assert kernel.entries == [(patient.inode, "NA-Chest-11111"), (patient.inode, "NA-NA-11111")]


async def test_only_the_studies_whose_series_changed_are_worked_out(kernel: Kernel) -> None:
    other = replace(CT, study_uid="1.2.3.99999", series_uid="1.2.3.4.33333")
    study = await descend(kernel.tree, *STUDY)
    await kernel.told(("series", "Lung", "P1"), [CT, other], [other])
    assert kernel.entries == [(study.inode, SERIES[-1])]


@pytest.mark.parametrize(
    "question",
    [
        ("named", *(f"1.2.3.{number}" for number in range(14))),
        ("cart", "Lung"),  # as a collection is called, too
        ("values", "", "modality", "", ""),
        ("changes",),
    ],
    ids=lambda question: f"{question[0]}-{len(question)}",
)
async def test_what_was_asked_of_no_folder_concerns_none(kernel: Kernel, question: tuple[str, ...]) -> None:
    await descend(kernel.tree, *STUDY)
    folders = [ROOT_INODE, kernel.tree.sources.main.inode(Level.COLLECTION, ("Lung",))]
    kept = [kernel.tree.folders.peek(inode) for inode in folders]
    assert None not in kept
    await kernel.told(question, [CT], [])
    assert kernel.entries == []
    assert [kernel.tree.folders.peek(inode) for inode in folders] == kept


async def test_a_twin_that_takes_over_a_name_makes_it_stale(kernel: Kernel) -> None:
    first = replace(CT, series_uid="1.2.3.4.0.22222")
    study = await descend(kernel.tree, *STUDY)
    await kernel.told(("series", "Lung", "P1"), [CT], [CT, first])
    assert (study.inode, SERIES[-1]) in kernel.entries
    assert len(kernel.entries) == 2


async def test_a_series_of_another_version_has_stale_images_and_keeps_its_name(kernel: Kernel) -> None:
    series = await descend(kernel.tree, *SERIES)
    await kernel.told(("series", "Lung", "P1"), [CT], [replace(CT, image_count=3)])
    assert kernel.entries == [(series.inode, "1-1.dcm"), (series.inode, "1-2.dcm")]
    assert kernel.attributes == []


async def test_another_day_is_a_matter_of_attributes(kernel: Kernel) -> None:
    series = await descend(kernel.tree, *SERIES)
    await kernel.told(("series", "Lung", "P1"), [CT], [replace(CT, released=dt.date(2022, 1, 1))])
    assert kernel.attributes == [series.inode]


async def test_what_the_folder_of_views_shows_of_all_is_told_too() -> None:
    class NoViews:
        async def kinds(self) -> Answer[Value]:
            return Answer((), time.time() + 1e6)

    catalogue: Any = FakeCatalogue(FakeArchive(CT))
    images: Any = FakeImages()
    views: Any = NoViews()
    kernel = Kernel(Tree(Sources(catalogue, views), images, Naming.DESCRIPTIVE))
    kernel.view = KernelView(kernel.tree, images, Naming.DESCRIPTIVE, kernel.forget_entry, lambda _: None)
    patient = await descend(kernel.tree, ".tciafs", "Lung", "P1")
    await kernel.tree.listing(patient)
    study = Study("Lung", "P1", "1.2.3.11111")
    await kernel.told(("studies", "Lung", "P1"), [study], [])
    assert kernel.entries == [(patient.inode, STUDY[-1])]
    assert kernel.tree.folders.peek(patient.inode) is None
    catalogue.archive.holdings.clear()
    await kernel.told(("collections",), [Collection("Lung")], [])
    with pytest.raises(NoSuchName):
        await descend(kernel.tree, ".tciafs", "Lung")


async def test_a_folder_that_changed_is_made_anew_when_it_is_next_asked_for(kernel: Kernel) -> None:
    await descend(kernel.tree, "Lung")
    assert kernel.tree.folders.peek(ROOT_INODE) is not None
    kernel.view.note(("collections",), [Collection("Lung")], [])
    assert kernel.tree.folders.peek(ROOT_INODE) is None


async def test_hundreds_of_changes_are_noted_without_waiting_and_told_in_order(kernel: Kernel) -> None:
    for number in range(300):
        kernel.view.note(("collections",), [Collection(str(number))], [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.view.run)
        while len(kernel.entries) < 300:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert kernel.entries == [(ROOT_INODE, str(number)) for number in range(300)]


@pytest.mark.expect_log(r"ERROR tciafs\.filesystem\.kernel_view: the kernel is not told of views")
async def test_a_change_of_which_the_kernel_cannot_be_told_does_not_keep_others_from_it(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_entry = kernel.forget_entry

    def forget_all_but_brains(folder: int, name: str) -> None:
        if name == "Brain":
            raise RuntimeError("can't start new thread")
        forget_entry(folder, name)

    monkeypatch.setattr(kernel.view, "_forget_entry", forget_all_but_brains)
    kernel.view.note_name(ROOT_INODE, "Brain")
    kernel.view.note_name(ROOT_INODE, "Lung")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.view.run)
            while not kernel.entries:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert kernel.entries == [(ROOT_INODE, "Lung")]
