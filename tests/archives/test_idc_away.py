"""The IDC alone while its buckets are away: who waits, who is told at once, how it comes back by itself."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tciafs.archives.idc.archive import LEFT_ALONE_S, IdcArchive
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.table import write_table
from tciafs.errors import AccessDenied, TciafsError, Unreachable, UnreadableAnswer
from tciafs.model import Member, Series
from tests.archives.test_idc import QUICK, Bucket, Opened, filled
from tests.dicom_files import small_dicom

RETRIES = 4
PATIENTS = 80


class Walked:
    """An archive of many patients, each with a study that nobody has listed yet."""

    def __init__(self, bucket: Bucket, folder: Path, patients: int) -> None:
        self.bucket = bucket
        self._unlisted = iter(range(patients))
        rows = []
        for number in range(patients):
            uid, study = f"1.2.{number}", f"1.3.{number}"
            image = small_dicom(uid, sop=f"{uid}.1", study_id=str(number))
            rows.append(("Lung", f"P{number}", filled(bucket, uid, image, study_uid=study)))
        write_table(folder / "table.sqlite", rows, {})
        config = IdcConfig(str(folder / "table.sqlite"), "https://s3.test", retries=RETRIES, limits=QUICK)
        self.archive = IdcArchive(config, transport=bucket)

    async def look(self) -> TciafsError | None:
        """List the next patient, and return what it failed with."""
        number = next(self._unlisted)
        try:
            (found,) = await self.archive.studies("Lung", f"P{number}")
        except TciafsError as error:
            return error
        assert found.study_id == str(number)
        return None

    async def series(self, number: int) -> Series:
        (found,) = await self.archive.series("Lung", f"P{number}")
        return found


@asynccontextmanager
async def walked(folder: Path, patients: int = PATIENTS) -> AsyncIterator[Walked]:
    held = Walked(Bucket(), folder, patients)
    try:
        yield held
    finally:
        await held.archive.aclose()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def opened(bucket: Bucket, tmp_path: Path) -> Opened:
    return Opened(bucket, tmp_path)


@pytest.fixture
async def walk(tmp_path: Path) -> AsyncIterator[Walked]:
    async with walked(tmp_path) as held:
        yield held


@pytest.mark.expect_log("the Imaging Data Commons is away, and not asked for 15 s")
async def test_a_walk_waits_for_dead_buckets_once(
    walk: Walked, autojump_clock: trio.testing.MockClock
) -> None:
    walk.bucket.is_down = True
    errors = [await walk.look() for _ in range(70)]
    assert walk.bucket.refused == 1 + RETRIES
    assert {type(each) for each in errors} == {Unreachable}
    assert len({str(each) for each in errors[1:]}) == 1
    assert (
        str(errors[1])
        == f"the Imaging Data Commons is not asked for a while (asked again in 15 s): {errors[0]}"
    )
    assert walk.archive.remark.startswith(
        "the Imaging Data Commons is away, and asked again in 15 s: s3.test"
    )


@pytest.mark.expect_log("the Imaging Data Commons is away")
async def test_of_a_patient_with_many_studies_one_finds_out(
    bucket: Bucket, opened: Opened, autojump_clock: trio.testing.MockClock
) -> None:
    images = {study: small_dicom(f"{study}.1", sop=f"{study}.1.1", study_id=study) for study in "56789"}
    archive = opened.archive(
        *(filled(bucket, f"{study}.1", image, study_uid=study) for study, image in images.items())
    )
    bucket.is_down = True
    with pytest.raises(Unreachable):
        await archive.studies("Lung", "P1")
    assert bucket.refused == 2, "as many attempts as for one"
    bucket.is_down = False
    await trio.sleep(LEFT_ALONE_S)
    assert {(each.study_uid, each.study_id) for each in await archive.studies("Lung", "P1")} == {
        (study, study) for study in images
    }
    await archive.aclose()


@pytest.mark.expect_log("the Imaging Data Commons is away")
async def test_it_comes_back_by_itself(walk: Walked, autojump_clock: trio.testing.MockClock) -> None:
    walk.bucket.is_down = True
    assert isinstance(await walk.look(), Unreachable)
    walk.bucket.is_down = False
    assert isinstance(await walk.look(), Unreachable)
    await trio.sleep(LEFT_ALONE_S)
    assert await walk.look() is None
    assert walk.archive.remark == ""
    assert await walk.look() is None


@pytest.mark.expect_log("the Imaging Data Commons is away")
async def test_names_and_parts_fail_at_once_but_what_was_learnt_is_told(
    walk: Walked, autojump_clock: trio.testing.MockClock
) -> None:
    archive = walk.archive
    learnt, another = await walk.series(78), await walk.series(79)
    (image,) = await archive.layout(learnt)
    walk.bucket.is_down = True
    assert isinstance(await walk.look(), Unreachable)
    refused = walk.bucket.refused
    assert list(await archive.layout(learnt)) == [image]
    with pytest.raises(Unreachable, match="not asked for a while"):
        await archive.layout(another)
    with pytest.raises(Unreachable, match="not asked for a while"):
        await archive.part(learnt, image, 0, 100)
    assert archive.can_name(another)
    assert archive.gives(learnt)
    assert walk.bucket.refused == refused
    await trio.sleep(LEFT_ALONE_S)
    assert list(await archive.layout(learnt)) == [image]
    assert not archive.route.is_trusted, "what is told from memory says nothing of the buckets"
    walk.bucket.is_down = False
    assert len(await archive.part(learnt, image, 0, image.size_bytes)) == image.size_bytes
    assert archive.route.is_trusted


@pytest.mark.expect_log("the Imaging Data Commons is away")
async def test_a_download_tries_all_the_same_and_finds_out_for_all(
    walk: Walked, autojump_clock: trio.testing.MockClock
) -> None:
    archive = walk.archive
    series = await walk.series(78)
    await archive.layout(series)
    walk.bucket.is_down = True
    assert isinstance(await walk.look(), Unreachable)
    refused = walk.bucket.refused
    with pytest.raises(Unreachable, match="could not be reached"):
        await _downloaded(archive, series)
    assert walk.bucket.refused == refused + 1, "who tries again himself has each try be one request"
    walk.bucket.is_down = False
    assert await _downloaded(archive, series) == series.size_bytes
    assert await walk.look() is None


async def _downloaded(archive: IdcArchive, series: Series) -> int:
    """Fetch a series, and return how many bytes came."""
    size_bytes = 0
    async with archive.images(series) as deliveries:
        async for each in deliveries:
            if isinstance(each, Member):
                size_bytes += sum([len(chunk) async for chunk in each.chunks])
    return size_bytes


@pytest.mark.parametrize(("status", "kind"), [(404, UnreadableAnswer), (403, AccessDenied)])
async def test_what_is_refused_does_not_count_as_away(
    walk: Walked, status: int, kind: type[TciafsError]
) -> None:
    walk.bucket.refusal = status
    assert isinstance(await walk.look(), kind)
    walk.bucket.refusal = None
    assert await walk.look() is None


@pytest.mark.parametrize("damage", ["changed", "none"])
async def test_a_damaged_answer_does_not_count_as_away(walk: Walked, damage: str) -> None:
    key = next(iter(walk.bucket.objects))
    walk.bucket.objects[key] = b"" if damage == "none" else b"no DICOM" * 1000
    with pytest.raises(TciafsError) as raised:
        await walk.archive.layout(await walk.series(0))
    assert not isinstance(raised.value, Unreachable)
    assert walk.archive.route.is_trusted


@dataclass(frozen=True)
class Step:
    """So much later some list one patient each, at once; the buckets are there, down, or refuse."""

    pause_s: int
    askers: int
    state: str


STEPS = st.builds(
    Step, st.sampled_from([0, 4, 16, 40]), st.integers(1, 3), st.sampled_from(["up", "down", "refusing"])
)


@pytest.mark.expect_log("the Imaging Data Commons is away")
@settings(max_examples=40)
@given(st.lists(STEPS, max_size=12))
def test_dead_buckets_are_asked_once_a_while(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory(prefix="tciafs-away-") as folder:
        # It is known from the beginning that they can be away.
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(_walk_in_steps, Path(folder), [Step(0, 1, "down"), *steps], clock=clock)


async def _walk_in_steps(folder: Path, steps: list[Step]) -> None:
    away_until, is_doubtful = 0.0, False
    async with walked(folder, sum(each.askers for each in steps)) as walk:
        bucket = walk.bucket
        for step in steps:
            await trio.sleep(step.pause_s)
            bucket.is_down = step.state == "down"
            bucket.refusal = 404 if step.state == "refusing" else None
            is_left_alone = is_doubtful and trio.current_time() < away_until
            refused, answered = bucket.refused, sum(bucket.asked.values())
            errors = await _looked_at_once(walk, step.askers)
            refused, answered = bucket.refused - refused, sum(bucket.asked.values()) - answered
            told_at_once = sum("not asked for a while" in str(each) for each in errors)
            if is_left_alone:
                assert (refused, answered, told_at_once) == (0, 0, step.askers)
                continue
            assert told_at_once == (step.askers - 1 if is_doubtful else 0)
            if step.state == "down":
                assert refused == 1 if is_doubtful else refused <= step.askers * (1 + RETRIES)
                away_until, is_doubtful = trio.current_time() + LEFT_ALONE_S, True
            elif step.state == "up":
                assert errors.count(None) == step.askers - told_at_once
                is_doubtful = False


async def _looked_at_once(walk: Walked, askers: int) -> list[TciafsError | None]:
    errors: list[TciafsError | None] = []

    async def look() -> None:
        errors.append(await walk.look())

    async with trio.open_nursery() as nursery:
        for _ in range(askers):
            nursery.start_soon(look)
    return errors
