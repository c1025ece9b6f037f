"""Views of what is chosen: what both leave, which there are, manifests that are kept, changes passed on."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig
from tciafs.errors import Misuse, NoSuchName
from tciafs.model import Change, Collection
from tciafs.selection.criteria import Criteria
from tciafs.selection.kept import MOST_MANIFESTS, KeptManifests
from tciafs.selection.manifests import Manifest
from tciafs.selection.named import Lists
from tciafs.selection.selection import LONGEST_SINCE_DAYS, Choice, Selection
from tciafs.selection.views import Views
from tests.fakes import FakeArchive
from tests.selection.conftest import ALL, BRAIN, BRAIN_CT, CT, OTHER_PATIENT, SEG, tree_of
from tests.selection.test_selection import placed

WORDS = st.lists(st.sampled_from(["CT", "ct", "MR", "SEG"]), max_size=2).map(tuple)
DAYS = st.none() | st.sampled_from([dt.date(2020, 1, each) for each in (1, 2, 3)])
COUNTS = st.none() | st.integers(0, 10)
CRITERIA = st.builds(
    Criteria,
    collections=st.lists(st.sampled_from(["Lung", "Brain"]), max_size=2).map(tuple),
    patients=st.lists(st.sampled_from(["P1", "B1"]), max_size=2).map(tuple),
    modalities=WORDS,
    body_parts=st.lists(st.sampled_from(["CHEST", "head"]), max_size=2).map(tuple),
    studied=st.tuples(DAYS, DAYS),
    released_since=DAYS,
    fewest_images=COUNTS,
    most_images=COUNTS,
    most_bytes=COUNTS,
    only_commercial=st.booleans(),
)
RECORDS = [
    replace(each, studied=day, released=day, size_bytes=5, licence_name=licence)
    for each in ALL
    for day in (None, dt.date(2020, 1, 2))
    for licence in (None, "CC BY 4.0", "CC BY-NC 4.0")
]


@given(CRITERIA, CRITERIA)
def test_what_both_want_is_what_each_of_them_wants(one: Criteria, other: Criteria) -> None:
    both = one & other
    assert [both.wants(each) for each in RECORDS] == [
        one.wants(each) and other.wants(each) for each in RECORDS
    ]


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive(*ALL)


@asynccontextmanager
async def running(archive: FakeArchive, folder: Path, choice: Choice | None = None) -> AsyncIterator[Views]:
    config = CatalogueConfig(folder / "listings", ttl_s=86_400)
    async with (
        Catalogue.running(archive, config) as catalogue,
        Selection.running(catalogue, choice or Choice()) as mounted,
        Views.running(catalogue, mounted, KeptManifests(folder / "manifests")) as views,
    ):
        catalogue.on_replaced = views.note
        yield views


async def words(views: Views, kind: str) -> list[str]:
    return [each.text for each in (await views.words(kind)).records]


async def test_values_come_from_the_lists_of_the_archive_each_spelt_one_way(
    archive: FakeArchive, tmp_path: Path
) -> None:
    archive.holdings.append(replace(CT, series_uid="1.1.9", modality="ct", body_part=None))
    async with running(archive, tmp_path) as views:
        assert await words(views, "by-modality") == ["CT", "MR", "PT", "SEG"]
        assert await words(views, "by-body-part") == ["CHEST", "HEAD"]
        assert await words(views, "by-manufacturer") == ["GE"]
    assert {each[0] for each in archive.asked} == {"values"}


@pytest.mark.parametrize(
    ("choice", "modalities"),
    [
        (Choice(Criteria(collections=("Brain",))), ["CT", "MR"]),
        (Choice(Criteria(modalities=("ct",))), ["CT"]),
        (Choice(Criteria(body_parts=("CHEST",))), ["CT", "PT"]),
        (Choice(lists=(Lists((Manifest("mine", (SEG.series_uid,)),)),)), ["SEG"]),
    ],
)
async def test_values_are_those_of_what_the_mount_shows(
    archive: FakeArchive, tmp_path: Path, choice: Choice, modalities: list[str]
) -> None:
    async with running(archive, tmp_path, choice) as views:
        assert await words(views, "by-modality") == modalities
        for word in modalities:
            assert await tree_of(views.listings(("by-modality", word)))


async def test_a_view_in_a_selection_shows_what_is_in_both(archive: FakeArchive, tmp_path: Path) -> None:
    mounted = Manifest("mounted", (CT.series_uid, SEG.series_uid, BRAIN.series_uid))
    async with running(archive, tmp_path, Choice(lists=(Lists((mounted,)),))) as views:
        assert await tree_of(views.listings(("by-modality", "CT"))) == placed(CT)
        await views.add(Manifest("own", (SEG.series_uid, BRAIN_CT.series_uid)))
        assert await tree_of(views.listings(("by-manifest", "own"))) == placed(SEG)
        assert (await views.found("own")).outside == 1


async def test_manifests_are_kept_and_are_plain_ones(archive: FakeArchive, tmp_path: Path) -> None:
    name = "a/b ß"
    async with running(archive, tmp_path) as views:
        await views.add(Manifest(name, (CT.series_uid, SEG.series_uid)))
        await views.add(Manifest("gone", (CT.series_uid,)))
        await views.remove("gone")
        with pytest.raises(NoSuchName):
            await views.remove("gone")
        with pytest.raises(NoSuchName):
            views.listings(("by-manifest", "gone"))
    async with running(archive, tmp_path) as views:
        assert await words(views, "by-manifest") == [name]
        assert await tree_of(views.listings(("by-manifest", name))) == placed(CT, SEG)
    (file,) = (tmp_path / "manifests").iterdir()
    assert file.read_text().split("\n")[2:4] == [CT.series_uid, SEG.series_uid]
    assert (tmp_path / "manifests").stat().st_mode & 0o077 == 0


def test_there_is_a_bound_to_what_is_kept(tmp_path: Path, expect_log: Callable[[str], None]) -> None:
    kept = KeptManifests(tmp_path)
    for bad in ("", "x" * 300):
        with pytest.raises(Misuse, match="200 bytes"):
            kept.add(Manifest(bad, ("1.2",)))
    for number in range(MOST_MANIFESTS):
        kept.add(Manifest(str(number), ("1.2",)))
    kept.add(Manifest("0", ("1.2.3",)))
    with pytest.raises(Misuse, match="200 manifests already"):
        kept.add(Manifest("one more", ("1.2",)))
    (tmp_path / "0.tcia").write_text("<html>")
    expect_log("names no series: it is a web page")
    assert "0" not in KeptManifests(tmp_path).manifests


async def test_what_was_released_is_asked_once_and_leaves_its_patients(
    archive: FakeArchive, tmp_path: Path
) -> None:
    day = dt.date.today() - dt.timedelta(days=3)
    archive.holdings.append(replace(OTHER_PATIENT, series_uid="1.3.9", released=day))
    archive.changed = [Change("Lung", "P2", day)]
    async with running(archive, tmp_path) as views:
        view = views.listings(("new-since", day.isoformat()))
        assert (await view.collections()).records == (Collection("Lung"),)
        assert archive.asked == [("collections",), ("changes", (day - dt.timedelta(days=1)).isoformat())]
        assert {path[3] for path in await tree_of(view)} == {"1.3.9"}
        assert await words(views, "new-since") == [day.isoformat()]
        assert views.finds(("new-since", "2001-02-03"))
        assert not views.finds(("new-since", "2001-2-3"))


@pytest.mark.parametrize("days", [3, LONGEST_SINCE_DAYS + 1])
async def test_where_that_is_not_told_or_long_ago_all_series_tell(
    archive: FakeArchive, tmp_path: Path, days: int
) -> None:
    day = dt.date.today() - dt.timedelta(days=days)
    new = replace(OTHER_PATIENT, series_uid="1.3.9", released=day)
    archive.holdings[:] = [CT, new]
    archive.changed = None
    async with running(archive, tmp_path) as views:
        assert await tree_of(views.listings(("new-since", day.isoformat()))) == placed(new)


async def test_changes_are_told_of_the_views_that_show_them(archive: FakeArchive, tmp_path: Path) -> None:
    async with running(archive, tmp_path) as views:
        told: list[tuple[Any, ...]] = []
        for word in ("CT", "MR"):
            await tree_of(views.listings(("by-modality", word)))
        views.on_replaced = lambda *change: told.append(change)
        archive.holdings.remove(CT)
        await views._catalogue.refresh("Lung", "P1")
        of_series = [change for change in told if change[1][0] == "series"]
        assert of_series == [(("by-modality", "CT"), ("series", "Lung", "P1"), (CT,), ())]
