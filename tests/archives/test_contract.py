"""What every archive promises (`model.Archive`), held against all that exist.

`ArchiveContract` is the contract; a class below it brings an archive, and a table of what that archive holds.
The public service is asked only where TCIAFS_CONTRACT_URL says so: one small collection, a few requests.
"""

import datetime as dt
import hashlib
import io
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import pytest
import trio
from pydicom import dcmread

from tciafs.archives.nbia.archive import Api, NbiaArchive, NbiaConfig
from tciafs.errors import AccessDenied, TciafsError, Unreachable, UnreadableAnswer
from tciafs.model import (
    Archive,
    Change,
    Checksums,
    Collection,
    Delivery,
    ImageKey,
    Member,
    Patient,
    Series,
    Study,
)
from tciafs.sample.dicom import uid
from tests.fakes import FakeArchive
from tests.sample.running import RunningSample, running_sample

T = TypeVar("T")

NOWHERE = "No-Such-Collection-Of-Any-Archive"


@dataclass(frozen=True)
class Held:
    """An archive and what is known of it: a small collection, and what guests may not have."""

    archive: Archive
    collection: str
    denied: Series | None = None
    brings_md5: bool = False
    tells_changes: bool = True


@dataclass(frozen=True)
class Fetched:
    """A member read to its end."""

    name: str | None
    promised_bytes: int | None
    data: bytes
    chunks: int


async def gathered(every: AbstractAsyncContextManager[AsyncIterator[Sequence[T]]]) -> set[T]:
    """Return all that comes in batches."""
    found: set[T] = set()
    async with every as batches:
        async for batch in batches:
            assert isinstance(batch, Sequence)
            assert batch
            found.update(batch)
    return found


async def fetch(archive: Archive, series: Series) -> tuple[list[Fetched], dict[str, str]]:
    """Return the members of a series in the order they came, and the checksums that came with them."""
    members: list[Fetched] = []
    md5: dict[str, str] = {}
    async with archive.images(series) as deliveries:
        async for delivery in deliveries:
            if isinstance(delivery, Checksums):
                md5.update(delivery.md5_by_name)
                continue
            assert isinstance(delivery, Member)
            chunks = [chunk async for chunk in delivery.chunks]
            assert all(type(chunk) is bytes and chunk for chunk in chunks)
            members.append(Fetched(delivery.name, delivery.size_bytes, b"".join(chunks), len(chunks)))
    return members, md5


async def smallest(held: Held) -> Series:
    """Return the series of the collection with the fewest bytes, of several images if there is one."""
    series = await gathered(held.archive.every_series(held.collection))
    several = [one for one in series if (one.image_count or 0) > 1] or series
    return min(several, key=lambda one: (one.size_bytes or 0, one.series_uid))


class ArchiveContract:
    """Subclasses give the fixture `held`."""

    async def test_collections_are_records_each_once(self, held: Held) -> None:
        collections = await held.archive.collections()
        assert isinstance(collections, Sequence)
        assert all(type(each) is Collection for each in collections)
        assert len(set(collections)) == len(collections)
        assert Collection(held.collection) in collections

    async def test_patients_are_those_of_the_collection_each_once(self, held: Held) -> None:
        patients = await held.archive.patients(held.collection)
        assert patients
        assert all(type(each) is Patient and each.collection == held.collection for each in patients)
        assert len({each.patient_id for each in patients}) == len(patients)

    async def test_all_studies_belong_to_what_was_asked_for(self, held: Held) -> None:
        patients = {each.patient_id for each in await held.archive.patients(held.collection)}
        studies = await gathered(held.archive.every_study(held.collection))
        assert studies
        assert all(type(each) is Study and each.collection == held.collection for each in studies)
        assert {each.patient_id for each in studies} == patients
        assert len({each.study_uid for each in studies}) == len(studies)

    async def test_all_series_belong_to_what_was_asked_for(self, held: Held) -> None:
        studies = {each.study_uid for each in await gathered(held.archive.every_study(held.collection))}
        series = await gathered(held.archive.every_series(held.collection))
        assert series
        assert all(type(each) is Series and each.collection == held.collection for each in series)
        assert {each.study_uid for each in series} == studies
        assert len({each.series_uid for each in series}) == len(series)

    async def test_the_listings_of_all_patients_are_that_of_the_collection(self, held: Held) -> None:
        archive, collection = held.archive, held.collection
        studies: list[Study] = []
        series: list[Series] = []
        for patient in await archive.patients(collection):
            for found in (
                await archive.studies(collection, patient.patient_id),
                await archive.series(collection, patient.patient_id),
            ):
                assert isinstance(found, Sequence)
                assert {each.patient_id for each in found} == {patient.patient_id}
                assert len(set(found)) == len(found)
            studies += await archive.studies(collection, patient.patient_id)
            series += await archive.series(collection, patient.patient_id)
        assert set(studies) == await gathered(archive.every_study(collection))
        assert set(series) == await gathered(archive.every_series(collection))

    async def test_what_counts_and_adds_up_images_is_a_number_or_not_said(self, held: Held) -> None:
        for each in await gathered(held.archive.every_series(held.collection)):
            assert each.image_count is None or each.image_count >= 0
            assert each.size_bytes is None or each.size_bytes >= 0

    async def test_a_listing_says_the_same_when_asked_again(self, held: Held) -> None:
        first = await gathered(held.archive.every_series(held.collection))
        assert await gathered(held.archive.every_series(held.collection)) == first

    async def test_all_series_that_are_left_early_harm_no_later_question(self, held: Held) -> None:
        for _ in range(5):
            async with held.archive.every_series(held.collection) as batches:
                assert await anext(batches)
        with trio.CancelScope() as scope:
            async with held.archive.every_study(held.collection) as studies:
                scope.cancel()
                await anext(studies)
        assert scope.cancelled_caught
        assert await gathered(held.archive.every_study(held.collection))

    async def test_single_images_are_those_of_the_series_and_are_called_as_there(self, held: Held) -> None:
        singles = held.archive.single_images
        if singles is None:
            return
        series = await smallest(held)
        members, _ = await fetch(held.archive, series)
        uids = await singles.image_uids(series)
        assert len(set(uids)) == len(uids) == len(members)
        images, keys = [], []
        for sop_uid in uids:
            async with singles.image(series, sop_uid) as member:
                images.append(b"".join([chunk async for chunk in member.chunks]))
            header = dcmread(io.BytesIO(images[-1]), stop_before_pixels=True)
            assert header.SOPInstanceUID == sop_uid
            keys.append(ImageKey(header.get("AcquisitionNumber"), header.get("InstanceNumber"), sop_uid))
        names = singles.names(keys)
        assert names is None or dict(zip(names, images, strict=True)) == {
            member.name: member.data for member in members
        }
        agrees = await singles.check_of(series)
        assert agrees is None or agrees([hashlib.md5(data).hexdigest() for data in images])

    async def test_changes_are_the_patients_with_later_releases_each_once(self, held: Held) -> None:
        series = await gathered(held.archive.every_series(held.collection))
        days = sorted({each.released for each in series if each.released is not None})
        assert days
        for since in (days[0] - dt.timedelta(1), days[-1] - dt.timedelta(1), days[-1]):
            changes = await held.archive.changes(since)
            if not held.tells_changes:
                assert changes is None
                continue
            assert changes is not None
            assert all(type(each) is Change and each.released > since for each in changes)
            assert len({(each.collection, each.patient_id) for each in changes}) == len(changes)
            latest: dict[str, dt.date] = {}
            for each in series:
                if each.released is not None and each.released > since:
                    known = latest.get(each.patient_id, each.released)
                    latest[each.patient_id] = max(known, each.released)
            told = {each.patient_id: each.released for each in changes if each.collection == held.collection}
            assert told == latest

    async def test_an_unknown_collection_is_empty_and_no_error(self, held: Held) -> None:
        assert list(await held.archive.patients(NOWHERE)) == []
        assert list(await held.archive.studies(NOWHERE, "nobody")) == []
        assert list(await held.archive.series(NOWHERE, "nobody")) == []
        assert await gathered(held.archive.every_study(NOWHERE)) == set()
        assert await gathered(held.archive.every_series(NOWHERE)) == set()

    async def test_an_unknown_patient_is_empty_and_no_error(self, held: Held) -> None:
        assert list(await held.archive.studies(held.collection, "no such patient")) == []
        assert list(await held.archive.series(held.collection, "no such patient")) == []

    async def test_series_are_found_by_their_uids_whatever_their_collection(self, held: Held) -> None:
        series = await gathered(held.archive.every_series(held.collection))
        found = await held.archive.named(*(each.series_uid for each in series), "9.9.9")
        assert len(found) == len(series)
        assert set(found) == series
        assert list(await held.archive.named("9.9.9")) == []

    @pytest.mark.parametrize("field", ["modality", "body_part", "manufacturer"])
    async def test_values_are_those_of_the_series_each_once(self, held: Held, field: str) -> None:
        series = await gathered(held.archive.every_series(held.collection))
        values = await held.archive.values(held.collection, field, "", "")
        assert len(set(values)) == len(values)
        assert {each.text for each in values} == {getattr(each, field) for each in series} - {None, ""}
        assert set(await held.archive.values("", field, "", "")) >= set(values)
        for modality in {each.modality for each in series if each.modality}:
            some = {getattr(each, field) for each in series if each.modality == modality}
            narrow = await held.archive.values(held.collection, field, modality, "")
            assert {each.text for each in narrow} == some - {None, ""}

    async def test_an_unknown_cart_is_empty_and_no_error(self, held: Held) -> None:
        assert list(await held.archive.cart("no such cart")) == []

    async def test_members_come_whole_and_as_the_listing_says(self, held: Held) -> None:
        series = await smallest(held)
        members, md5 = await fetch(held.archive, series)
        assert len(members) == series.image_count
        assert sum(len(member.data) for member in members) == series.size_bytes
        for member in members:
            assert member.promised_bytes in (None, len(member.data))
        names = [member.name for member in members]
        assert len(set(names)) == len(names)
        assert set(md5) == (set(names) if held.brings_md5 else set())

    async def test_members_come_in_the_same_order_with_the_same_bytes_each_time(self, held: Held) -> None:
        series = await smallest(held)
        first, _ = await fetch(held.archive, series)
        again, _ = await fetch(held.archive, series)
        assert [(member.name, member.data) for member in first] == [
            (member.name, member.data) for member in again
        ]

    async def test_a_fetch_that_is_left_early_harms_no_later_one(self, held: Held) -> None:
        series = await smallest(held)
        async with held.archive.images(series) as deliveries:
            while isinstance(first := await anext(deliveries), Checksums):
                pass  # which may come at any time
            assert [chunk async for chunk in first.chunks]
        members, _ = await fetch(held.archive, series)
        assert len(members) == series.image_count

    async def test_a_fetch_that_is_cancelled_harms_no_later_one(self, held: Held) -> None:
        series = await smallest(held)
        with trio.CancelScope() as scope:
            async with held.archive.images(series) as deliveries:
                await anext(deliveries)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        members, _ = await fetch(held.archive, series)
        assert len(members) == series.image_count

    async def test_many_may_ask_at_once(self, held: Held) -> None:
        expected = await gathered(held.archive.every_series(held.collection))
        answers: list[set[Series]] = []

        async def ask() -> None:
            answers.append(await gathered(held.archive.every_series(held.collection)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert answers == [expected] * 5

    async def test_what_this_user_may_not_have_is_denied(self, held: Held) -> None:
        if held.denied is None:
            pytest.skip("nothing is known that this archive denies")
        with pytest.raises(AccessDenied) as raised:
            await fetch(held.archive, held.denied)
        assert str(raised.value)

    async def test_a_series_that_does_not_exist_is_an_error_of_ours_or_has_no_images(
        self, held: Held
    ) -> None:
        unknown = Series(held.collection, "nobody", "1.2.3.4", "1.2.3.4.5", image_count=1, size_bytes=1)
        members: list[Delivery] = []
        try:
            async with held.archive.images(unknown) as deliveries:
                members = [delivery async for delivery in deliveries]
        except TciafsError as error:
            assert str(error)  # noqa: PT017
        assert members == []


# A fake


class TestFakeArchive(ArchiveContract):
    @pytest.fixture
    async def held(self) -> AsyncIterator[Held]:
        images = [("1-1.dcm", b"one"), ("1-2.dcm", b""), ("1-3.dcm", bytes(100))]
        day = dt.date(2026, 1, 2)
        whole = Series("Lung", "P1", "1.2", "1.2.3", "CT", image_count=3, size_bytes=103, released=day)
        other = Series("Lung", "P2", "1.4", "1.4.5", "CT", image_count=1, size_bytes=5_000)
        denied = Series("Secret", "P3", "1.6", "1.6.7", "CT", image_count=1, size_bytes=5)
        archive = FakeArchive(whole, other, denied)
        archive.changed = [Change("Lung", "P1", day)]
        archive.bring(whole.series_uid, images)
        archive.bring(denied.series_uid, [AccessDenied("not for guests")])
        yield Held(archive, "Lung", denied)
        await archive.aclose()

    async def test_what_is_planned_to_fail_fails_once_and_is_noted(self, held: Held) -> None:
        archive = held.archive
        assert isinstance(archive, FakeArchive)
        archive.asked.clear()
        for question, ask in (
            ("every_study", lambda: gathered(archive.every_study("Lung"))),
            ("every_series", lambda: gathered(archive.every_series("Lung"))),
            ("changes", lambda: archive.changes(dt.date(2026, 1, 1))),
        ):
            archive.fail(question, Unreachable("away"))
            with pytest.raises(Unreachable):
                await ask()
            assert await ask()
        about = {"every_study": "Lung", "every_series": "Lung", "changes": "2026-01-01"}
        assert archive.asked == [question for pair in about.items() for question in (pair, pair)]


# NBIA, over the sample archive


class NbiaContract(ArchiveContract):
    """Subclasses give the options of the sample server and the version that is spoken with it."""

    options: tuple[str, ...] = ()
    api: Api | None = None
    brings_md5 = True
    tells_changes = True

    @pytest.fixture(scope="class")
    @classmethod
    def sample(cls) -> Iterator[RunningSample]:
        with running_sample(*cls.options) as sample:
            yield sample

    @pytest.fixture
    async def held(self, sample: RunningSample) -> AsyncIterator[Held]:
        archive = NbiaArchive(NbiaConfig(sample.url, self.api, retries=0))
        denied = Series("Limited-Access", "LIMITED-001", uid("limited", "study"), uid("limited", "series"))
        try:
            yield Held(archive, "Numbering_Traps", denied, self.brings_md5, self.tells_changes)
        finally:
            await archive.aclose()

    async def test_a_fetch_that_is_left_within_an_image_harms_no_later_one(self, held: Held) -> None:
        series = await smallest(held)
        for _ in range(30):
            async with held.archive.images(series) as deliveries:
                first = await anext(deliveries)
                assert isinstance(first, Member)
                assert await anext(first.chunks)
        members, _md5 = await fetch(held.archive, series)
        assert len(members) == series.image_count

    @pytest.mark.parametrize("kind", ["html", "truncate_json", "status"])
    async def test_a_whole_collection_that_goes_wrong_is_an_error_of_ours(
        self, held: Held, sample: RunningSample, kind: str
    ) -> None:
        assert await held.archive.collections()
        sample.fault(kind, "getSeries")
        try:
            with pytest.raises(Unreachable if kind == "status" else UnreadableAnswer):
                await gathered(held.archive.every_series(held.collection))
        finally:
            sample.clear_faults()
        assert await gathered(held.archive.every_series(held.collection))


class TestNbiaV4(NbiaContract):
    pass


class TestNbiaV1(NbiaContract):
    options = ("--api", "v1")
    brings_md5 = False
    tells_changes = False


class TestNbiaV4ThatKnowsNoMd5(NbiaContract):
    options = ("--no-md5",)
    api: Api | None = "v4"
    brings_md5 = False


# The public service


@pytest.mark.skipif(
    "TCIAFS_CONTRACT_URL" not in os.environ,
    reason="TCIAFS_CONTRACT_URL is not set: the public service is not asked",
)
class TestPublicService(ArchiveContract):
    @pytest.fixture
    async def held(self) -> AsyncIterator[Held]:
        archive = NbiaArchive(NbiaConfig(os.environ["TCIAFS_CONTRACT_URL"]))
        collection = os.environ.get("TCIAFS_CONTRACT_COLLECTION", "RIDER Pilot")
        try:
            await archive.collections()
            is_v4 = archive.config.api == "v4"
            yield Held(archive, collection, brings_md5=is_v4, tells_changes=is_v4)
        finally:
            await archive.aclose()
