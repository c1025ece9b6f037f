"""What is known of the tree is shown without a question to the archive, and what is on disk is found."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import ANY

import msgspec
import pytest
from msgspec.structs import replace

from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig
from tciafs.control.known_values import KnownFolder, KnownPage
from tciafs.control.server import MOST_ANSWER_BYTES
from tciafs.errors import NoSuchName
from tciafs.filesystem.known import Known
from tciafs.model import Series
from tciafs.naming import Naming
from tciafs.selection.criteria import Criteria
from tciafs.selection.manifests import Manifest
from tciafs.selection.named import Lists
from tciafs.selection.selection import Choice, Selection
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeArchive, FakeFetcher

CT = Series("Lung", "P1", "1.1", "1.1.1", "CT", image_count=2, size_bytes=30)
MR = replace(CT, series_uid="1.1.2", modality="MR", image_count=None, size_bytes=20)
OTHER_STUDY = replace(CT, study_uid="1.2", series_uid="1.2.1")
OTHER_PATIENT = replace(CT, patient_id="P2", study_uid="1.3", series_uid="1.3.1")
BRAIN = replace(CT, collection="Brain", patient_id="B1", study_uid="2.1", series_uid="2.1.1")
ALL = (CT, MR, OTHER_STUDY, OTHER_PATIENT, BRAIN)
CONTENTS = [("1-1.dcm", b"first image"), ("1-2.dcm", b"second")]


@dataclass(frozen=True)
class Stage:
    """An archive, what is known of it, and a store."""

    archive: FakeArchive
    catalogue: Catalogue
    store: Store
    known: Known

    async def list_all(self) -> None:
        """List everything as a walk through the mount does."""
        for collection in (await self.catalogue.collections()).records:
            for patient in (await self.catalogue.patients(collection.name)).records:
                await self.catalogue.studies(collection.name, patient.patient_id)
                await self.catalogue.series(collection.name, patient.patient_id)
        self.archive.asked.clear()

    async def fetch(self, series: Series) -> None:
        await self.store.fetch(series).over.wait()


@asynccontextmanager
async def staged(tmp_path: Path, *series: Series, choice: Choice | None = None) -> AsyncIterator[Stage]:
    archive = FakeArchive(*(series or ALL))
    fetcher = FakeFetcher({each.series_uid: CONTENTS for each in archive.holdings})
    async with (
        Catalogue.running(archive, CatalogueConfig(tmp_path / "listings", ttl_s=0.0)) as catalogue,
        Selection.running(catalogue, choice or Choice()) as selection,
        Store.running(StoreConfig(tmp_path / "cache", 10_000_000), fetcher) as store,
    ):
        shown = catalogue if choice is None else selection
        known = Known(shown.that_never_asks(), Naming("classic"), store.holdings, store.state)
        yield Stage(archive, catalogue, store, known)


def folder(
    name: str, series: int | None, images: int | None, listed_bytes: int | None, *, cached: int = 0
) -> KnownFolder:
    return KnownFolder(name, series, images, listed_bytes, cached, ANY if cached else 0)


async def test_what_nobody_has_listed_is_not_known_and_nobody_is_asked(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        for path in ("/", "/Lung", "/Lung/P1", "/Lung/P1/1.1"):
            assert await stage.known.page(path, "") == KnownPage((), 0, None, is_listed=False)
        await stage.catalogue.collections()
        stage.archive.asked.clear()
        assert (await stage.known.page("/Lung", "")).is_listed is False
        assert stage.archive.asked == []


async def test_the_tree_is_shown_as_far_as_it_was_listed_however_old_that_is(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.list_all()
        await stage.fetch(CT)
        page = stage.known.page
        assert await page("/", "") == KnownPage(
            (folder("Brain", 1, 2, 30), folder("Lung", 4, None, 110, cached=1)), 2, None
        )
        assert (await page("/Lung", "")).folders == (
            folder("P1", 3, None, 80, cached=1),
            folder("P2", 1, 2, 30),
        )
        assert (await page("/Lung/P1/", "")).folders == (
            folder("1.1", 2, None, 50, cached=1),
            folder("1.2", 1, 2, 30),
        )
        ct, mr = (await page("/Lung/P1/1.1", "")).folders
        assert (ct.name, ct.state, ct.series_uid, ct.modality) == ("1.1.1", "local", "1.1.1", "CT")
        assert (ct.images, ct.cached_series) == (2, 1)
        assert ct.cached_bytes > 0
        assert (mr.state, mr.cached_bytes, mr.images) == ("remote", 0, None)
        assert stage.archive.asked == []


async def test_a_collection_has_a_size_once_all_of_it_was_listed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as stage:
        await stage.list_all()
        monkeypatch.setattr("tciafs.catalogue.summing.FEW_PATIENTS", 0)
        await stage.catalogue._remembered.write_whole("series", "Lung", 1.0)
        for _again in range(2):
            folders = (await stage.known.page("/", "")).folders
            assert folders == (folder("Brain", None, None, None), folder("Lung", 4, None, 110))
        assert stage.archive.asked == []


async def test_sums_that_take_long_are_left_to_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as stage:
        await stage.list_all()
        monkeypatch.setattr("tciafs.filesystem.known.ADDING_UP_S", 0.0)
        assert {each.series for each in (await stage.known.page("/", "")).folders} == {None}
        monkeypatch.undo()
        assert {each.series for each in (await stage.known.page("/", "")).folders} == {1, 4}


async def test_a_patient_whose_series_are_not_known_is_shown_without_a_size(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.catalogue.patients("Lung")
        await stage.catalogue.collections()
        await stage.catalogue.series("Lung", "P2")
        stage.archive.asked.clear()
        folders = (await stage.known.page("/Lung", "")).folders
        assert folders == (folder("P1", None, None, None), folder("P2", 1, 2, 30))
        assert stage.archive.asked == []


@pytest.mark.parametrize("path", ["/Nothing", "/Lung/P9", "/Lung/P1/9", "/Lung/P1/1.1/1.1.1", "/../etc"])
async def test_a_name_that_is_not_there_is_an_error(path: str, tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.list_all()
        with pytest.raises(NoSuchName):
            await stage.known.page(path, "")


@pytest.mark.parametrize("character", ["x", "ß", "\x01", "\\"])
async def test_a_long_folder_comes_page_by_page_each_name_once_whatever_it_is(
    character: str, tmp_path: Path
) -> None:
    odd = character * 60
    series = [
        replace(CT, patient_id=f"{number:04}{odd}", series_uid=f"1.{number}", modality=character * 1000)
        for number in range(450)
    ]
    async with staged(tmp_path, *series) as stage:
        await stage.catalogue.collections()
        await stage.catalogue.patients("Lung")
        names: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await stage.known.page("/Lung", after)
            assert len(msgspec.json.encode(page)) < MOST_ANSWER_BYTES
            assert page.total == 450
            names += [each.name for each in page.folders]
            after = page.next
        assert names == sorted(set(names))
        assert len(names) == 450


async def test_of_a_choice_only_what_was_chosen_is_known(tmp_path: Path) -> None:
    async with staged(tmp_path, choice=Choice(Criteria(modalities=("MR",)))) as stage:
        await stage.list_all()
        assert (await stage.known.page("/", "")).is_listed is False  # what has any was not yet asked
        assert (await stage.known.page("/Lung", "")).is_listed is False
        assert stage.archive.asked == []


async def test_of_a_manifest_what_was_found_is_known(tmp_path: Path) -> None:
    choice = Choice(lists=(Lists((Manifest("cohort", (MR.series_uid,)),)),))
    archive = FakeArchive(*ALL)
    async with (
        Catalogue.running(archive, CatalogueConfig(tmp_path / "listings", ttl_s=60.0)) as catalogue,
        Selection.running(catalogue, choice) as selection,
        Store.running(StoreConfig(tmp_path / "cache", 10_000_000), FakeFetcher()) as store,
    ):
        known = Known(selection.that_never_asks(), Naming("classic"), store.holdings, store.state)
        assert (await known.page("/", "")).is_listed is False
        await selection.collections()
        await selection.series("Lung", "P1")
        archive.asked.clear()
        assert [each.name for each in (await known.page("/", "")).folders] == ["Lung"]
        assert (await known.page("/Lung", "")).folders == (folder("P1", 1, None, 20),)
        assert archive.asked == []


# Where an image's bytes are


async def test_the_middle_image_is_located_and_any_other(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.fetch(CT)
        for image, place in ((None, 1), (0, 0), (1, 1)):
            located = await stage.store.holdings.locate("1.1.1", image)
            assert located is not None
            name, data = CONTENTS[place]
            assert (located.name, located.image, located.images) == (name, place, 2)
            content = located.pack.read_bytes()
            assert content[located.offset : located.offset + located.size_bytes] == data


async def test_what_is_not_on_disk_is_nowhere(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        assert await stage.store.holdings.locate("1.1.1", None) is None
        await stage.fetch(CT)
        for image in (2, -1, 10**9):
            assert await stage.store.holdings.locate("1.1.1", image) is None
        await stage.store.keeper.evict((), "")
        assert await stage.store.holdings.locate("1.1.1", None) is None
        assert await stage.store.holdings.below(()) == {}


async def test_however_many_series_are_on_disk_each_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tciafs.store.holdings.ROWS_AT_ONCE", 2)
    async with staged(tmp_path) as stage:
        for each in ALL:
            await stage.fetch(each)
        held = await stage.store.holdings.below(())
        assert {key: each.series for key, each in held.items()} == {"Lung": 4, "Brain": 1}
        assert sum(each.pack_bytes for each in held.values()) == stage.store.usage().used_bytes
        assert {k: v.series for k, v in (await stage.store.holdings.below(("Lung",))).items()} == {
            "P1": 3,
            "P2": 1,
        }
        assert await stage.store.holdings.below(("Lu",)) == {}
        assert await stage.store.holdings.below(CT.path) == {}
