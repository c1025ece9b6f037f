"""NBIA alone until the table of the IDC is there: what is asked of whom, what is waited for, and how long."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
import trio.testing

from tciafs.archives.either.archive import EitherArchive
from tciafs.archives.either.config import EitherConfig
from tciafs.archives.either.joining import PATIENCE_S, JoiningArchive
from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.table import IndexedSeries, write_table
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.archives.opening import archives_meant, asking_once, lacks_index, open_archive
from tciafs.errors import AccessDenied, Unreachable
from tciafs.model import Collection, ListedImage, Member, Partial, Patient
from tests.archives.test_either import FakeNbia, of_nbia
from tests.archives.test_idc import QUICK, Bucket, filled
from tests.archives.test_idc_table import indexed
from tests.dicom_files import small_dicom

AWAY = Unreachable("no route to NBIA")


class Joining:
    """An archive whose IDC is not there yet, and what both hold."""

    def __init__(self, folder: Path) -> None:
        self.bucket = Bucket()
        self.nbia = FakeNbia()
        self.nbia.holdings = [of_nbia("1.2.1"), of_nbia("7", "6", "P", "Knee")]
        self._table = folder / "table.sqlite"
        self.idc = IdcConfig(str(self._table), "https://s3.test", retries=0, limits=QUICK)
        self.config = EitherConfig(self.idc, NbiaConfig(), str(folder / "beyond.sqlite"))
        self.archive = JoiningArchive(self.config, cast(NbiaArchive, self.nbia), self._open)
        self.opened = 0

    def _open(self, config: IdcConfig) -> IdcArchive:
        self.opened += 1
        return IdcArchive(config, transport=self.bucket)

    def make_table(self, *rows: IndexedSeries) -> None:
        incoming = self._table.with_suffix(".new")
        write_table(
            incoming, [("Lung", "P1", row) for row in rows or (indexed("1.2.1"), indexed("1.2.2"))], {}
        )
        incoming.rename(self._table)

    def make_what_is_no_table(self) -> None:
        self._table.write_bytes(b"no table")


@pytest.fixture
async def joining(tmp_path: Path) -> AsyncIterator[Joining]:
    held = Joining(tmp_path)
    yield held
    await held.archive.aclose()


async def test_nbia_answers_until_the_table_is_there_and_then_both(joining: Joining) -> None:
    archive = joining.archive
    assert not archive.has_joined
    assert list(await archive.patients("Lung")) == [Patient("Lung", "P1")]
    (listed,) = await archive.series("Lung", "P1")
    assert listed.description == "as NBIA says"
    assert not archive.can_name(listed)
    assert not archive.gives(listed)
    assert await archive.layout(listed) is None
    with pytest.raises(Unreachable, match="not there yet"):
        await archive.part(listed, ListedImage("1-1.dcm", 1), 0, 1)
    joining.make_table()
    assert {each.series_uid for each in await archive.series("Lung", "P1")} == {"1.2.1", "1.2.2"}
    assert list(await archive.collections()) == [Collection("Lung"), Collection("Knee")]
    async with archive.every_series("Lung") as batches:
        assert {each.series_uid async for batch in batches for each in batch} == {"1.2.1", "1.2.2"}
    assert joining.opened == 1


async def test_only_what_lists_names_is_asked_for_again_soon(joining: Joining) -> None:
    archive = joining.archive
    assert isinstance(await archive.collections(), Partial)
    assert isinstance(await archive.patients("Lung"), Partial)
    assert not isinstance(await archive.series("Lung", "P1"), Partial)
    assert not isinstance(await archive.studies("Lung", "P1"), Partial)
    joining.make_table()
    assert not isinstance(await archive.collections(), Partial)
    assert not isinstance(await archive.patients("Lung"), Partial)


async def test_workers_and_listings_on_disk_are_those_of_both_from_the_beginning(joining: Joining) -> None:
    assert joining.archive.config == joining.config
    joining.make_table()
    await joining.archive.collections()
    assert joining.archive.config == joining.config


async def test_images_come_from_nbia_and_then_from_the_buckets(joining: Joining) -> None:
    image = small_dicom("1.2.1", sop="1.2.1.1")
    row = filled(joining.bucket, "1.2.1", image)
    listed = of_nbia("1.2.1")
    joining.nbia.bring("1.2.1", [("1-1.dcm", image)])
    routes = list[str]()
    for _ in range(2):
        async with joining.archive.images(listed) as deliveries:
            async for each in deliveries:
                if isinstance(each, Member):
                    routes.append(each.route)
                    assert b"".join([chunk async for chunk in each.chunks]) == image
        joining.make_table(row)
    assert routes == ["", "idc"]
    assert joining.archive.can_name(listed)
    assert joining.archive.gives(listed)


async def test_what_is_held_of_images_is_left_out_once_the_idc_has_joined(joining: Joining) -> None:
    image = small_dicom("1.2.1", sop="1.2.1.1", instance=1)
    row = filled(joining.bucket, "1.2.1", image)
    joining.nbia.bring("1.2.1", [("1-1.dcm", image)])
    ranges, listed = joining.archive.ranges, of_nbia("1.2.1")
    came = list[tuple[str | None, str, int, bytes]]()
    for _ in range(2):
        async with ranges.images_behind(listed, {"1-1.dcm": 100}) as deliveries:
            async for each in deliveries:
                if isinstance(each, Member):
                    came.append((each.name, each.route, each.first, await _read(each)))
        joining.make_table(row)
    assert came == [("1-1.dcm", "", 0, image), ("1-1.dcm", "idc", 100, image[100:])]


async def test_images_that_nbia_cannot_give_wait_for_the_table_whatever_is_held(
    joining: Joining, autojump_clock: trio.testing.MockClock
) -> None:
    image = small_dicom("1.2.1", sop="1.2.1.1", instance=1)
    row = filled(joining.bucket, "1.2.1", image)
    joining.nbia.fail("images", AWAY)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.sleep(PATIENCE_S / 2)
            joining.make_table(row)

        async with joining.archive.ranges.images_behind(of_nbia("1.2.1"), {"1-1.dcm": 100}) as deliveries:
            (member,) = [each async for each in deliveries if isinstance(each, Member)]
            assert (member.route, member.first) == ("idc", 0), "whole, as it was asked for before"


async def _read(member: Member) -> bytes:
    return b"".join([chunk async for chunk in member.chunks])


async def test_what_nbia_cannot_answer_waits_for_the_table(
    joining: Joining, autojump_clock: trio.testing.MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("NBIA is away")  # when it is asked for what it adds to the IDC
    joining.nbia.fail("series", AWAY)
    joining.nbia.fail("series", AWAY)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.sleep(PATIENCE_S / 2)
            joining.make_table()

        found = {each.series_uid for each in await joining.archive.series("Lung", "P1")}
    assert found == {"1.2.1", "1.2.2"}


async def test_the_table_is_waited_for_so_long_in_all(
    joining: Joining, autojump_clock: trio.testing.MockClock
) -> None:
    joining.nbia.fail("series", AWAY)
    begun = trio.current_time()
    with pytest.raises(
        Unreachable, match=r"no route to NBIA; the Imaging Data Commons is still being made ready"
    ):
        await joining.archive.series("Lung", "P1")
    assert PATIENCE_S <= trio.current_time() - begun < PATIENCE_S + 1
    joining.nbia.fail("studies", AWAY)
    begun = trio.current_time()
    with pytest.raises(Unreachable, match="no route to NBIA"):
        await joining.archive.studies("Lung", "P1")
    assert trio.current_time() == begun


async def test_a_question_that_waits_is_let_go_when_there_will_be_no_table(
    joining: Joining, autojump_clock: trio.testing.MockClock
) -> None:
    joining.nbia.fail("collections", AWAY)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.sleep(3)
            joining.archive.give_up()

        with pytest.raises(Unreachable, match=r"^no route to NBIA$"):
            await joining.archive.collections()
    assert trio.current_time() < PATIENCE_S


async def test_what_says_nothing_of_the_server_is_not_waited_with(joining: Joining) -> None:
    joining.nbia.fail("series", AccessDenied("not for guests"))
    with pytest.raises(AccessDenied):
        await joining.archive.series("Lung", "P1")


async def test_once_given_up_it_is_nbia_alone(joining: Joining) -> None:
    archive = joining.archive
    archive.give_up()
    joining.make_table()
    assert archive.config == NbiaConfig()
    assert [each.series_uid for each in await archive.series("Lung", "P1")] == ["1.2.1"]
    assert not isinstance(await archive.collections(), Partial)
    joining.nbia.fail("collections", AWAY)
    with pytest.raises(Unreachable, match=r"^no route to NBIA$"):
        await archive.collections()


async def test_a_table_that_cannot_be_read_is_tried_once_and_its_successor_again(joining: Joining) -> None:
    joining.make_what_is_no_table()
    for _ in range(3):
        assert [each.series_uid for each in await joining.archive.series("Lung", "P1")] == ["1.2.1"]
    assert joining.opened == 1
    joining.make_table()
    assert len(await joining.archive.series("Lung", "P1")) == 2


async def test_what_nbia_listed_before_is_there_when_it_is_away_afterwards(
    joining: Joining, expect_log: Callable[[str], None]
) -> None:
    expect_log("NBIA is away")
    archive, nbia = joining.archive, joining.nbia
    marked = msgspec.structs.replace(of_nbia("1.2.1"), has_annotations=True)
    nbia.holdings = [marked, of_nbia("1.2.9"), of_nbia("5", "4", "P5"), of_nbia("7", "6", "P", "Knee")]
    questions = ("collections",), ("patients", "Lung"), ("series", "Lung", "P1")
    before = [set(await getattr(archive, kind)(*whose)) for kind, *whose in questions]
    joining.make_table()
    nbia.fail("collections", AWAY)
    after = [await getattr(archive, kind)(*whose) for kind, *whose in questions]
    assert [set(each) for each in after[:2]] == before[:2]
    assert {each.series_uid: each.has_annotations for each in after[2]} == {
        "1.2.1": True,
        "1.2.2": False,
        "1.2.9": False,
    }
    assert all(isinstance(each, Partial) for each in after)


# -- which archive it is --------------------------------------------------------------------------


async def test_a_configuration_of_both_is_one_that_joins_where_there_is_no_table(
    joining: Joining, expect_log: Callable[[str], None]
) -> None:
    archive = open_archive(joining.config)
    assert isinstance(archive, JoiningArchive)
    await archive.aclose()
    joining.make_what_is_no_table()
    expect_log("cannot be read")
    archive = open_archive(joining.config)
    assert isinstance(archive, JoiningArchive)
    await archive.aclose()
    joining.make_table()
    archive = open_archive(joining.config)
    assert isinstance(archive, EitherArchive)
    await archive.aclose()


async def test_who_asks_once_waits_for_no_table(joining: Joining) -> None:
    assert asking_once(joining.config) == msgspec.structs.replace(NbiaConfig(), retries=0)
    joining.make_table()
    once = asking_once(joining.config)
    assert isinstance(once, EitherConfig)
    assert (once.idc.retries, once.nbia.retries) == (0, 0)


TCIA = NbiaConfig().url
PRIVATE = "https://nbia.example.org/nbia-api/services"


@pytest.fixture(params=[True, False])
def is_installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the index is installed, or is not."""
    monkeypatch.setattr("tciafs.archives.idc.index.is_installed", lambda: request.param)
    return bool(request.param)


def test_auto_takes_in_the_idc_where_the_server_is_tcias_own_and_the_index_is_installed(
    is_installed: bool,
) -> None:
    for url in (TCIA, f"{TCIA}/"):
        assert archives_meant("auto", url, None) == (("idc", "nbia") if is_installed else ("nbia",))
        assert lacks_index("auto", url, None) is not is_installed


def test_another_server_is_never_mixed_with_the_idc_but_where_an_index_is_named(is_installed: bool) -> None:
    for url in (PRIVATE, "http://127.0.0.1:8042", f"{TCIA}.example.org", TCIA.replace("nbia.", "nlst.", 1)):
        assert archives_meant("auto", url, None) == ("nbia",)
        assert not lacks_index("auto", url, None)
        assert archives_meant("auto", url, Path("index")) == ("idc", "nbia")


@pytest.mark.parametrize("archive", ["nbia", "idc", "sample"])
def test_one_that_is_named_is_meant_alone(is_installed: bool, archive: str) -> None:
    assert archives_meant(archive, TCIA, Path("index")) == (archive,)
    assert not lacks_index(archive, TCIA, None)
