"""The IDC and NBIA as one: what is shown of both, whom is asked what, and that names depend on nobody."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
import trio.testing

from tciafs.archives.either.archive import EitherArchive
from tciafs.archives.either.beyond import Beyond
from tciafs.archives.either.config import EitherConfig
from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.table import IndexedSeries, write_table
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.archives.nbia.names import retriever_names
from tciafs.errors import AccessDenied, TciafsError, Unreachable, UnreadableAnswer
from tciafs.model import Checksums, Collection, ImageKey, Member, Partial, Patient, Series, Study
from tests.archives.test_idc import QUICK, Bucket, filled
from tests.archives.test_idc_table import indexed
from tests.dicom_files import small_dicom
from tests.fakes import Annotation, FakeAnnotations, FakeArchive, make_series

Logged = Callable[..., AbstractContextManager[None]]

AWAY = Unreachable("no route to NBIA")


class FakeSingles:
    """NBIA's images one by one: none, but its names."""

    deflates_whole_series = True

    def names(self, images: Sequence[ImageKey]) -> Sequence[str] | None:
        return retriever_names(images)

    async def image_uids(self, series: Series) -> Sequence[str]:
        return ["from-nbia"]

    async def check_of(self, series: Series) -> None:
        return None


class FakeNbia(FakeArchive):
    """NBIA with these series; `study_ids` by study UID."""

    def __init__(self, *series: Series) -> None:
        super().__init__(*series)
        self.single_images = cast("None", FakeSingles())
        self.study_ids: dict[str, str] = {}
        self.config = NbiaConfig()

    async def studies(self, collection: str, patient: str) -> Sequence[Study]:
        found = await super().studies(collection, patient)
        return [msgspec.structs.replace(each, study_id=self.study_ids.get(each.study_uid)) for each in found]

    def questions(self, *kinds: str) -> list[tuple[str, ...]]:
        return [each for each in self.asked if each[0] in kinds]


class Both:
    """What the two hold, and archives made of them, as one daemon after the other opens them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bucket = Bucket()
        self.nbia = FakeNbia()
        self._opened: list[EitherArchive] = []

    def hold(self, *rows: IndexedSeries) -> None:
        """Let the index have these series, of one patient."""
        write_table(self._folder / "table.sqlite", [("Lung", "P1", row) for row in rows], {})

    def archive(self) -> EitherArchive:
        config = IdcConfig(str(self._folder / "table.sqlite"), "https://s3.test", retries=0, limits=QUICK)
        either = EitherConfig(config, NbiaConfig(), str(self._folder / "beyond.sqlite"))
        idc = IdcArchive(config, transport=self.bucket)
        self._opened.append(EitherArchive(either, idc, cast(NbiaArchive, self.nbia)))
        return self._opened[-1]

    async def aclose(self) -> None:
        for each in self._opened:
            await each.aclose()


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    held = Both(tmp_path)
    yield held
    await held.aclose()


def of_nbia(uid: str, study_uid: str = "1.2", patient: str = "P1", collection: str = "Lung") -> Series:
    return Series(collection, patient, study_uid, uid, "CT", description="as NBIA says", image_count=1)


@pytest.fixture
def logged(expect_log: Callable[[str], None]) -> Logged:
    """Declare what is logged, in a block of the test or before it."""

    def declare(*patterns: str) -> AbstractContextManager[None]:
        for pattern in patterns:
            expect_log(pattern)
        return nullcontext()

    return declare


# -- listings -------------------------------------------------------------------------------------


async def test_a_listing_has_what_either_has_and_of_both_what_the_idc_says(both: Both) -> None:
    both.hold(indexed("1.2.1"), indexed("1.2.2"))
    both.nbia.holdings = [
        of_nbia("1.2.2"),
        of_nbia("1.2.3"),
        of_nbia("9", "8", "P2"),
        of_nbia("7", "6", "P", "Knee"),
    ]
    archive = both.archive()
    found = {each.series_uid: each.description for each in await archive.series("Lung", "P1")}
    assert found == {"1.2.1": "axial", "1.2.2": "axial", "1.2.3": "as NBIA says"}
    assert list(await archive.collections()) == [Collection("Lung"), Collection("Knee")]
    assert list(await archive.patients("Lung")) == [Patient("Lung", "P1"), Patient("Lung", "P2")]
    assert [each.series_uid for each in await archive.series("Lung", "P2")] == ["9"]
    assert [each.patient_id for each in await archive.patients("Knee")] == ["P"]
    async with archive.every_series("Lung") as batches:
        listed = [each async for batch in batches for each in batch]
    assert {each.series_uid for each in listed} == {"1.2.1", "1.2.2", "1.2.3", "9"}
    assert set(await archive.series("Lung", "P1")) < set(listed)


async def test_while_nbia_is_away_what_it_alone_had_is_still_listed(both: Both, logged: Logged) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.holdings = [of_nbia("1.2.3"), of_nbia("9", "8", "P2"), of_nbia("7", "6", "P", "Knee")]
    whole = both.archive()
    before = [await whole.collections(), await whole.patients("Lung"), await whole.series("Lung", "P1")]
    assert not any(isinstance(each, Partial) for each in before)
    async with whole.every_series("Lung") as batches:
        everything = {each async for batch in batches for each in batch}
    both.nbia.fail("collections", AWAY)
    both.nbia.fail("every_series", AWAY)
    with logged("NBIA is away"):
        archive = both.archive()
        after = [
            await archive.collections(),
            await archive.patients("Lung"),
            await archive.series("Lung", "P1"),
        ]
        async with archive.every_series("Lung") as batches:
            got = [batch async for batch in batches]
    assert [set(each) for each in after] == [set(each) for each in before]
    assert all(isinstance(each, Partial) for each in (*after, *got))
    assert {each for batch in got for each in batch} == everything
    assert both.nbia.questions("patients", "series") == [("patients", "Lung"), ("series", "Lung", "P1")], (
        "one who waits in vain is enough"
    )


async def test_what_nbia_has_no_more_is_forgotten(both: Both, logged: Logged) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.holdings = [of_nbia("1.2.3"), of_nbia("1.2.4")]
    archive = both.archive()
    await archive.series("Lung", "P1")
    both.nbia.holdings = [of_nbia("1.2.4")]
    await archive.series("Lung", "P1")
    both.nbia.fail("series", AWAY)
    with logged("NBIA is away"):
        assert {each.series_uid for each in await archive.series("Lung", "P1")} == {"1.2.1", "1.2.4"}


async def test_where_the_idc_has_nothing_nbias_failure_is_that_of_the_listing(
    both: Both, logged: Logged
) -> None:
    both.hold(indexed("1.2.1"))
    archive = both.archive()
    both.nbia.fail("patients", AWAY)
    with logged("NBIA is away"), pytest.raises(Unreachable, match="no route"):
        await archive.patients("Knee")
    with pytest.raises(Unreachable, match=r"NBIA is not asked for a while \(asked again in 30 s\): no route"):
        await archive.series("Knee", "P")
    assert both.nbia.asked == [("patients", "Knee")]


async def test_a_listing_waits_for_nbia_but_not_for_ever(
    both: Both, logged: Logged, autojump_clock: trio.testing.MockClock
) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.open = trio.Event()
    archive = both.archive()
    with logged("NBIA did not answer within 10 s"):
        assert len(await archive.patients("Lung")) == 1
        async with archive.every_series("Lung") as batches:
            assert [each.series_uid async for batch in batches for each in batch] == ["1.2.1"]
    assert trio.current_time() < 11


async def test_a_study_id_is_that_of_nbia_and_the_bucket_is_not_asked(both: Both, logged: Logged) -> None:
    image = small_dicom("1.2.1", sop="1", study_id="in the header")
    both.hold(filled(both.bucket, "1.2.1", image, study_uid="1"), indexed("1.2.2", "2"))
    both.nbia.holdings = [of_nbia("1.2.1", "1"), of_nbia("1.2.2", "2")]
    both.nbia.study_ids = {"1": "4711"}
    archive = both.archive()
    assert [each.study_id for each in await archive.studies("Lung", "P1")] == ["4711", None]
    assert not both.bucket.asked
    both.nbia.study_ids = {"1": "another"}
    assert [each.study_id for each in await archive.studies("Lung", "P1")] == ["4711", None]
    both.nbia.fail("studies", AWAY)
    with logged("NBIA is away"):
        assert [each.study_id for each in await archive.studies("Lung", "P1")] == ["4711", None]


async def test_without_nbia_a_study_id_is_that_of_a_header_and_stays(both: Both, logged: Logged) -> None:
    image = small_dicom("1.2.1", sop="1", study_id="in the header")
    both.hold(filled(both.bucket, "1.2.1", image, study_uid="1"))
    both.nbia.holdings, both.nbia.study_ids = [of_nbia("1.2.1", "1")], {"1": "4711"}
    both.nbia.fail("studies", AWAY)
    with logged("NBIA is away"):
        assert [each.study_id for each in await both.archive().studies("Lung", "P1")] == ["in the header"]
    assert [each.study_id for each in await both.archive().studies("Lung", "P1")] == ["in the header"]


async def test_with_both_away_a_study_that_nobody_listed_is_not_guessed(both: Both, logged: Logged) -> None:
    both.hold(indexed("1.2.1"))
    both.bucket.is_down = True
    both.nbia.fail("studies", AWAY)
    archive = both.archive()
    with logged("NBIA is away", "the Imaging Data Commons is away"):
        for _ in range(2):
            with pytest.raises(Unreachable):
                await archive.studies("Lung", "P1")


async def test_a_collection_that_breaks_off_at_nbia_is_complete_as_far_as_it_was_known(
    both: Both, logged: Logged
) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.holdings = [of_nbia("1.2.3")]
    archive = both.archive()
    async with archive.every_study("Lung") as batches:
        before = {each async for batch in batches for each in batch}
    both.nbia.fail("every_study", UnreadableAnswer("half a page"))
    async with archive.every_study("Lung") as batches:
        assert {each async for batch in batches for each in batch} == before


async def test_series_are_found_by_uid_in_either(both: Both) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.holdings = [of_nbia("1.2.1"), of_nbia("1.2.3")]
    archive = both.archive()
    assert [each.description for each in await archive.named("1.2.1")] == ["axial"]
    assert both.nbia.asked == []
    found = {each.series_uid: each.description for each in await archive.named("1.2.3", "1.2.1", "5")}
    assert found == {"1.2.1": "axial", "1.2.3": "as NBIA says"}
    assert both.nbia.asked == [("named", "1.2.3", "5")]


# -- images ---------------------------------------------------------------------------------------


FILES = [small_dicom("1.2", sop=str(number), instance=number) for number in range(1, 4)]
NAMES = ["1-1.dcm", "1-2.dcm", "1-3.dcm"]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def fetched(archive: EitherArchive, series: Series) -> tuple[list[tuple[str | None, bytes]], list[str]]:
    """Return the images as they came, and what their routes were."""
    images, routes = [], list[str]()
    async with archive.images(series) as deliveries:
        async for delivery in deliveries:
            if isinstance(delivery, Member):
                images.append((delivery.name, b"".join([chunk async for chunk in delivery.chunks])))
                routes.append(delivery.route)
            else:
                assert isinstance(delivery, Checksums)
                images.append(("md5 of", ",".join(sorted(dict(delivery.md5_by_name))).encode()))
    return images, routes


async def held_by_both(both: Both, files: Sequence[bytes] = FILES) -> Series:
    both.hold(filled(both.bucket, "1.2", *files))
    (series,) = await IdcArchive(IdcConfig(str(both._folder / "table.sqlite"))).series("Lung", "P1")
    both.nbia.holdings = [of_nbia("1.2")]
    return series


async def test_images_come_from_the_idc_and_its_buckets_away_from_nbia(both: Both, logged: Logged) -> None:
    series = await held_by_both(both)
    both.nbia.bring("1.2", list(zip(["b.dcm", "c.dcm", "a.dcm"], FILES, strict=True)))
    archive = both.archive()
    images, _ = await fetched(archive, series)
    assert images == [("md5 of", ",".join(NAMES).encode()), *zip(NAMES, FILES, strict=True)]
    assert both.nbia.questions("images") == []
    both.bucket.is_down = True
    with logged("the Imaging Data Commons is away"):
        images, _ = await fetched(both.archive(), series)
    assert images == list(zip(NAMES, FILES, strict=True)), "under the names that their headers had"


async def test_images_whose_headers_were_never_read_come_from_nbia_without_names(
    both: Both, logged: Logged
) -> None:
    series = await held_by_both(both)
    both.nbia.bring("1.2", list(zip(["b.dcm", "c.dcm", "a.dcm"], FILES, strict=True)))
    both.bucket.is_down = True
    archive = both.archive()
    with logged("the Imaging Data Commons is away"):
        images, _ = await fetched(archive, series)
    assert images == [(None, data) for data in FILES]
    assert await archive.layouts.layout(series) is None
    assert not archive.single_images.can_name(series)


async def test_parts_are_the_idcs_until_it_fails_with_the_series(both: Both, logged: Logged) -> None:
    series = await held_by_both(both)
    archive = both.archive()
    image = (await archive.layouts.layout(series) or [])[1]
    assert archive.ranges.gives(series)
    assert not archive.ranges.gives(of_nbia("9"))
    assert await archive.ranges.part(series, image, 5, 20) == FILES[NAMES.index(image.name)][5:25]
    both.bucket.is_down = True
    with logged("the Imaging Data Commons is away"), pytest.raises(Unreachable):
        await archive.ranges.part(series, image, 0, 20)
    assert not archive.ranges.gives(series)


async def test_who_has_an_image_open_reads_on_as_soon_as_the_buckets_are_back(
    both: Both, logged: Logged
) -> None:
    series = await held_by_both(both)
    archive = both.archive()
    listed = await archive.layouts.layout(series)
    assert listed is not None
    both.bucket.is_down = True
    with logged("the Imaging Data Commons is away"), pytest.raises(Unreachable, match="could not be reached"):
        await archive.ranges.part(series, listed[0], 0, 10)
    assert not archive.ranges.gives(series)
    both.bucket.is_down = False
    assert len(await archive.ranges.part(series, listed[0], 4, 10)) == 10


async def test_checksums_of_nbia_are_for_the_names_of_the_idc(both: Both, logged: Logged) -> None:
    series = await held_by_both(both)
    names = ["b.dcm", "c.dcm", "a.dcm"]
    told = Checksums(tuple((name, md5(data)) for name, data in zip(names, FILES, strict=True)))
    both.nbia.bring("1.2", [*zip(names, FILES, strict=True), told])
    await fetched(both.archive(), series)
    both.bucket.is_down = True
    with logged("the Imaging Data Commons is away"):
        images, _ = await fetched(both.archive(), series)
    assert images[-1] == ("md5 of", ",".join(NAMES).encode())


async def test_an_image_that_only_nbia_has_of_a_series_is_refused(both: Both, logged: Logged) -> None:
    series = await held_by_both(both)
    both.nbia.bring("1.2", [("a.dcm", small_dicom("1.2", sop="9", instance=9))])
    await fetched(both.archive(), series)
    both.bucket.is_down = True
    with (
        logged("the Imaging Data Commons is away"),
        pytest.raises(UnreadableAnswer, match="does not have"),
    ):
        await fetched(both.archive(), series)


async def test_what_breaks_off_in_the_middle_comes_from_nbia_the_next_time(
    both: Both, logged: Logged
) -> None:
    files = [small_dicom("1.2", sop=str(number), instance=number) for number in range(1, 61)]
    series = await held_by_both(both, files)
    names = [f"1-{number:02}.dcm" for number in range(1, 61)]
    both.nbia.bring("1.2", list(zip(names, files, strict=True)))
    archive = both.archive()
    await archive.single_images.image_uids(series)
    logged("the Imaging Data Commons is away")

    async def break_off() -> None:
        async with archive.images(series) as deliveries:
            both.bucket.is_down = True
            async for delivery in deliveries:
                if isinstance(delivery, Member):
                    async for _ in delivery.chunks:
                        pass

    with pytest.raises(Unreachable):
        await break_off()
    both.bucket.is_down = False
    images, _ = await fetched(archive, series)
    assert images == list(zip(names, files, strict=True))
    assert both.nbia.questions("images") == [("images", "1.2")]


async def test_a_series_that_the_bucket_has_not_whole_comes_from_nbia(both: Both) -> None:
    series = await held_by_both(both)
    both.nbia.bring("1.2", list(zip(NAMES, FILES, strict=True)))
    both.bucket.objects.popitem()
    images, _ = await fetched(both.archive(), series)
    assert [data for _, data in images] == FILES


async def test_with_both_away_one_error_says_why_of_each(both: Both, logged: Logged) -> None:
    series = await held_by_both(both)
    both.bucket.is_down = True
    both.nbia.fail("images", AWAY)
    archive = both.archive()
    with (
        logged("the Imaging Data Commons is away", "NBIA is away"),
        pytest.raises(Unreachable, match=r"s3\.test.*; no route to NBIA"),
    ):
        await fetched(archive, series)


async def test_what_nbia_denies_and_the_bucket_has_not_is_denied(both: Both) -> None:
    series = await held_by_both(both)
    both.bucket.objects.clear()
    both.nbia.fail("images", AccessDenied("not for guests"))
    archive = both.archive()
    with pytest.raises(TciafsError, match="not for guests"):
        await fetched(archive, series)


async def test_a_series_that_the_index_lacks_is_nbias_alone(both: Both) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.holdings = [alone := of_nbia("1.2.3")]
    both.nbia.bring("1.2.3", [("x.dcm", b"data")])
    archive = both.archive()
    assert await fetched(archive, alone) == ([("x.dcm", b"data")], [""])
    assert not archive.single_images.can_name(alone)
    assert await archive.layouts.layout(alone) is None
    assert await archive.single_images.image_uids(alone) == ["from-nbia"]


# -- what is remembered ---------------------------------------------------------------------------


def test_many_records_are_remembered_also_with_empty_names(tmp_path: Path) -> None:
    beyond = Beyond(tmp_path / "beyond.sqlite")
    patients = [Patient("Lung", "")] + [Patient("Lung", f"P{number}") for number in range(2500)]
    beyond.keep("patients", "Lung", [("", each.patient_id, each) for each in patients], 1.0)
    assert set(beyond.of(Patient, "patients", "Lung", "")) == set(patients)
    assert {each for some in beyond.of_all(Patient, "patients", "Lung") for each in some} == set(patients)
    beyond.forget_unseen("patients", "Lung", "", 1.0)
    assert beyond.of_any("patients", "Lung", "")
    beyond.forget_unseen("patients", "Lung", "", 1.5)
    assert not beyond.of_any("patients", "Lung", "")
    beyond.close()


def test_a_file_that_cannot_be_used_costs_only_the_memory(tmp_path: Path, logged: Logged) -> None:
    (tmp_path / "beyond.sqlite").write_bytes(b"no database" * 100)
    with logged("what NBIA alone has"):
        beyond = Beyond(tmp_path / "beyond.sqlite")
        series = make_series("1.2.3")
        beyond.keep("series", "Lung", [("P1", "1.2.3", series)], 1.0)
        assert beyond.of(Series, "series", "Lung", "P1") == []
        beyond.close()


async def test_a_series_that_nbia_has_listed_as_another_version_comes_from_nbia(both: Both) -> None:
    image = small_dicom("1.2.1", sop="1.2.1.1")
    both.hold(filled(both.bucket, "1.2.1", image))
    archive = both.archive()
    (ours,) = await archive.series("Lung", "P1")
    another = msgspec.structs.replace(ours, image_count=2)
    assert (archive.ranges.gives(ours), archive.layouts.can_name(ours)) == (True, True)
    assert (archive.ranges.gives(another), archive.layouts.can_name(another)) == (False, False)
    both.nbia.bring("1.2.1", [("1-1.dcm", image), ("1-2.dcm", image)])
    async with archive.images(another) as deliveries:
        names = [each.name async for each in deliveries if isinstance(each, Member)]
    assert names == ["1-1.dcm", "1-2.dcm"]


# -- annotations ----------------------------------------------------------------------------------


def marked(uid: str) -> Series:
    return msgspec.structs.replace(of_nbia(uid), has_annotations=True)


async def annotated(archive: EitherArchive) -> list[set[str]]:
    """Return which series have annotations, as each of the questions tells."""
    listed = await archive.series("Lung", "P1")
    async with archive.every_series("Lung") as batches:
        every = [each async for batch in batches for each in batch]
    named = await archive.named(*(each.series_uid for each in listed))
    assert set(listed) == set(every) == set(named)
    return [{each.series_uid for each in some if each.has_annotations} for some in (listed, every, named)]


async def test_a_series_that_both_have_has_the_annotations_that_nbia_tells_of(
    both: Both, logged: Logged
) -> None:
    both.hold(indexed("1.2.1"), indexed("1.2.2"))
    both.nbia.holdings = [marked("1.2.1"), of_nbia("1.2.2"), marked("1.2.3")]
    archive = both.archive()
    assert await annotated(archive) == [{"1.2.1", "1.2.3"}] * 3
    (ours,) = [each for each in await archive.series("Lung", "P1") if each.series_uid == "1.2.1"]
    assert ours.description == "axial"
    with logged("NBIA is away"):
        both.nbia.fail("series", AWAY)
        listed = await archive.series("Lung", "P1")
    assert isinstance(listed, Partial)
    assert {each.series_uid for each in listed if each.has_annotations} == {"1.2.1", "1.2.3"}
    both.nbia.holdings = [of_nbia("1.2.1"), of_nbia("1.2.2")]
    assert await annotated(both.archive()) == [set()] * 3


async def test_a_series_with_annotations_comes_whole_from_nbia_under_the_names_of_the_idc(
    both: Both, logged: Logged
) -> None:
    images = [small_dicom("1.2.1", sop=f"1.2.1.{n}", instance=n) for n in (1, 2)]
    both.hold(filled(both.bucket, "1.2.1", *images))
    both.nbia.holdings = [marked("1.2.1")]
    md5s = [hashlib.md5(data).hexdigest() for data in (*images, b"<x/>")]
    archive = both.archive()
    (series,) = await archive.series("Lung", "P1")
    assert (archive.ranges.gives(series), archive.layouts.can_name(series)) == (False, False)
    for is_down in (True, False):
        both.bucket.is_down = is_down
        both.nbia.annotations = FakeAnnotations(
            [
                ("b.dcm", images[1]),
                ("a.dcm", images[0]),
                Annotation("9.xml", b"<x/>"),
                Checksums(tuple(zip(("a.dcm", "b.dcm", "9.xml"), md5s, strict=True))),
            ]
        )
        with logged("the Imaging Data Commons is away") if is_down else nullcontext():
            async with both.archive().annotations.images(series) as deliveries:
                came = [await _read(each) async for each in deliveries]
        names = (None, None) if is_down else ("1-2.dcm", "1-1.dcm")
        assert came[:3] == [*zip(names, reversed(images), strict=True), ("9.xml", b"<x/>")]
        told = dict(cast(Checksums, came[3]).md5_by_name)
        assert told == {"9.xml": md5s[2]} | ({} if is_down else {"1-1.dcm": md5s[0], "1-2.dcm": md5s[1]})


async def _read(delivery: Member | Checksums) -> tuple[str | None, bytes] | Checksums:
    if isinstance(delivery, Checksums):
        return delivery
    return delivery.name, b"".join([chunk async for chunk in delivery.chunks])


async def test_while_nbia_is_away_annotations_are_not_waited_for(both: Both, logged: Logged) -> None:
    both.hold(indexed("1.2.1"))
    both.nbia.holdings = [marked("1.2.1")]
    both.nbia.annotations = FakeAnnotations([])
    archive = both.archive()
    (series,) = await archive.series("Lung", "P1")
    with logged("NBIA is away"):
        both.nbia.fail("series", AWAY)
        await archive.series("Lung", "P1")
    with pytest.raises(Unreachable, match="not asked for a while"):
        async with archive.annotations.images(series):
            pass
