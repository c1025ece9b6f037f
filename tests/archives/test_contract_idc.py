"""The contract of `test_contract`, held against the IDC alone, and with NBIA as one: both there, or not."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from tciafs.archives.either.archive import EitherArchive
from tciafs.archives.either.config import EitherConfig
from tciafs.archives.either.joining import JoiningArchive
from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.making import make_table, table_order
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.errors import TciafsError, Unreachable, UnreadableAnswer
from tciafs.model import Archive, Series
from tciafs.sample import traps
from tciafs.sample.as_idc import BUCKET, write_as_idc
from tciafs.sample.dicom import uid
from tests.archives.test_contract import NOWHERE, ArchiveContract, Held, fetch, gathered, smallest
from tests.archives.test_idc import QUICK, Bucket
from tests.s3 import RunningS3, needs_s3, running_s3
from tests.sample.running import RunningSample, running_sample

pytest.importorskip("duckdb")

COLLECTION = "Numbering_Traps"
NOBODY = "http://127.0.0.1:9"

DENIED = Series("Limited-Access", "LIMITED-001", uid("limited", "study"), uid("limited", "series"))


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample() as running:
        yield running


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection as the IDC has it: its objects, and a table of it."""
    folder = tmp_path_factory.mktemp("contract")
    (shelf,) = (shelf for shelf in traps.shelves() if shelf.name == COLLECTION)
    write_as_idc(folder, shelf.series)
    order = table_order(folder / "index", folder, everything=False)
    trio.run(make_table, order)
    order.path.rename(folder / "table.sqlite")
    return folder


class Parts:
    """What an archive of both is made of: NBIA at an address, a bucket, and the files in a folder."""

    def __init__(self, written: Path, nbia_url: str, folder: Path) -> None:
        self.bucket = Bucket()
        for path in (written / BUCKET).rglob("*.dcm"):
            self.bucket.objects[str(path.relative_to(written / BUCKET))] = path.read_bytes()
        self.table = folder / "table.sqlite"
        self._written = written / "table.sqlite"
        idc = IdcConfig(str(self.table), "https://s3.test", retries=0, limits=QUICK)
        nbia = NbiaConfig(nbia_url, retries=0, limits=QUICK)
        self.config = EitherConfig(idc, nbia, str(folder / "beyond.sqlite"))
        self.nbia = NbiaArchive(nbia)

    def make_table(self) -> None:
        self.table.write_bytes(self._written.read_bytes())

    def idc(self, config: IdcConfig) -> IdcArchive:
        return IdcArchive(config, transport=self.bucket)

    def both(self) -> EitherArchive:
        self.make_table()
        return EitherArchive(self.config, self.idc(self.config.idc), self.nbia)


@pytest.fixture
def parts(written: Path, sample: RunningSample, tmp_path: Path) -> Parts:
    return Parts(written, sample.url, tmp_path)


async def held_open(archive: Archive, denied: Series | None = DENIED) -> AsyncIterator[Held]:
    try:
        yield Held(archive, COLLECTION, denied, brings_md5=True)
    finally:
        await archive.aclose()


@needs_s3
class TestIdc(ArchiveContract):
    """Over a real S3 server; nobody is denied anything there."""

    @pytest.fixture(scope="class")
    @classmethod
    def s3(cls, written: Path) -> Iterator[RunningS3]:
        with running_s3(written) as server:
            yield server

    @pytest.fixture
    async def held(self, s3: RunningS3, written: Path, tmp_path: Path) -> AsyncIterator[Held]:
        table = tmp_path / "table.sqlite"  # what headers say is remembered beside it
        table.write_bytes((written / "table.sqlite").read_bytes())
        async for each in held_open(IdcArchive(IdcConfig(str(table), s3.url, retries=0)), denied=None):
            yield each

    async def test_an_unknown_cart_is_empty_and_no_error(self, held: Held) -> None:
        with pytest.raises(UnreadableAnswer, match="has no shared carts"):
            await held.archive.cart("no such cart")


class TestBoth(ArchiveContract):
    @pytest.fixture
    async def held(self, parts: Parts) -> AsyncIterator[Held]:
        async for each in held_open(parts.both()):
            yield each


class TestBothBeforeTheIdcJoins(ArchiveContract):
    @pytest.fixture
    async def held(self, parts: Parts) -> AsyncIterator[Held]:
        async for each in held_open(JoiningArchive(parts.config, parts.nbia, parts.idc)):
            yield each


class TestBothAfterTheIdcHasJoined(ArchiveContract):
    @pytest.fixture
    async def held(self, parts: Parts) -> AsyncIterator[Held]:
        archive = JoiningArchive(parts.config, parts.nbia, parts.idc)
        await archive.collections()
        parts.make_table()
        async for each in held_open(archive):
            yield each


class TestBothWithoutTheBuckets(ArchiveContract):
    """The names of images are known: else they come without, which is no matter of this contract."""

    @pytest.fixture
    async def held(self, parts: Parts, expect_log: Callable[[str], None]) -> AsyncIterator[Held]:
        expect_log("the Imaging Data Commons is away")
        archive = parts.both()
        for each in await gathered(archive.every_series(COLLECTION)):
            await archive.layouts.layout(each)
        parts.bucket.is_down = True
        await fetch(archive, await smallest(Held(archive, COLLECTION)))
        async for held in held_open(archive):
            yield held


class TestBothWithoutNbia(ArchiveContract):
    """What only NBIA could tell is Unreachable, and not nothing."""

    @pytest.fixture
    async def held(
        self, written: Path, tmp_path: Path, expect_log: Callable[[str], None]
    ) -> AsyncIterator[Held]:
        expect_log("NBIA is away")
        archive = Parts(written, NOBODY, tmp_path).both()
        await archive.collections()
        async for each in held_open(archive, denied=None):
            yield each

    async def test_changes_are_the_patients_with_later_releases_each_once(self, held: Held) -> None:
        (series, *_) = await gathered(held.archive.every_series(COLLECTION))
        assert series.released is not None
        with pytest.raises(Unreachable):
            await held.archive.changes(series.released)

    async def test_an_unknown_collection_is_empty_and_no_error(self, held: Held) -> None:
        archive = held.archive
        for question in (
            archive.patients(NOWHERE),
            archive.studies(NOWHERE, "nobody"),
            archive.series(NOWHERE, "nobody"),
            gathered(archive.every_study(NOWHERE)),
            gathered(archive.every_series(NOWHERE)),
        ):
            with pytest.raises(Unreachable):
                await question

    async def test_an_unknown_patient_is_empty_and_no_error(self, held: Held) -> None:
        with pytest.raises(Unreachable):
            await held.archive.studies(held.collection, "no such patient")

    async def test_series_are_found_by_their_uids_whatever_their_collection(self, held: Held) -> None:
        series = await gathered(held.archive.every_series(held.collection))
        assert set(await held.archive.named(*(each.series_uid for each in series))) == series
        with pytest.raises(Unreachable):
            await held.archive.named("9.9.9")

    async def test_an_unknown_cart_is_empty_and_no_error(self, held: Held) -> None:
        with pytest.raises(Unreachable):
            await held.archive.cart("no such cart")

    async def test_a_series_that_does_not_exist_is_an_error_of_ours_or_has_no_images(
        self, held: Held
    ) -> None:
        unknown = Series(held.collection, "nobody", "1.2.3.4", "1.2.3.4.5", image_count=1, size_bytes=1)
        with pytest.raises(TciafsError):
            await fetch(held.archive, unknown)
