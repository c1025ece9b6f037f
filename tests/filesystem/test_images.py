"""The four states of a series, looks and walks, and what provisional names stand for; with a real store."""

import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.errors import DeadlinePassed, Offline, SeriesDamaged, Unreachable
from tciafs.filesystem import aliases as aliases_module
from tciafs.filesystem.images import ARRIVING_S, CERTAIN_S, FINAL_S, FoundImage, ImageListing, may_be_image
from tciafs.model import MOST_IMAGES, ListedImage, Series
from tciafs.naming import provisional_image_names, resolve_aliases
from tests.fakes import make_series
from tests.filesystem.fakes import Core, running_core

THREE = make_series("1.2.3", 3)
IMAGES = [("1-1.dcm", b"one"), ("1-2.dcm", b"second"), ("1-3.dcm", b"the third")]
TWO_ACQUISITIONS = make_series("1.2.12", 12)
TWELVE = [
    (f"{group}-{place:02}.dcm", bytes([group, place]) * place) for group in (1, 2) for place in range(1, 7)
]
LONE = make_series("1.2.1", 1, size_bytes=4)
LONE_OF_UNKNOWN_SIZE = make_series("1.2.11", 1)
PROBES = [".git", "desktop.ini", "autorun.inf", ".hidden", "._1-1.dcm", "DICOMDIR", "1-1", ".dcm", ""]


async def names_in(listing: ImageListing | None) -> list[str]:
    """Return the names of a listing read to its end."""
    return [image.name for image in await read(listing)]


async def read(listing: ImageListing | None) -> list[FoundImage]:
    assert listing is not None
    found: list[FoundImage] = []
    while True:
        await listing.wait_for(len(found))
        if (image := listing.at(len(found))) is None:
            return found
        found.append(image)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """Nothing comes of itself: the test moves the transfers."""
    async with running_core(tmp_path) as core:
        yield core


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Core]:
    """Every series comes as soon as it is fetched."""
    contents = {
        THREE.series_uid: IMAGES,
        TWO_ACQUISITIONS.series_uid: TWELVE,
        LONE.series_uid: [("1-1.dcm", b"lone")],
    }
    async with running_core(tmp_path, contents=contents) as core:
        yield core


# Known


async def test_names_once_shown_come_one_by_one_however_many_there_are(quick: Core) -> None:
    names = quick.images.names_once_shown(make_series("1.2.4", MOST_IMAGES))
    assert [next(names), next(names)] == ["1-00000001.dcm", "1-00000002.dcm"]
    assert list(quick.images.names_once_shown(make_series("1.2.4", None))) == []


async def test_names_once_shown_are_the_true_ones_and_those_of_walkers(quick: Core) -> None:
    await quick.fetch(TWO_ACQUISITIONS)
    names = list(quick.images.names_once_shown(TWO_ACQUISITIONS))
    assert names == [*(name for name, _data in TWELVE), *provisional_image_names(12)]


async def test_a_series_that_was_fetched_lists_at_once_and_for_good(quick: Core) -> None:
    await quick.fetch(THREE)
    found = await read(quick.images.listing(THREE))
    assert found == [FoundImage(name, len(data), FINAL_S) for name, data in IMAGES]
    assert await quick.images.find(THREE, "1-2.dcm") == FoundImage("1-2.dcm", 6, FINAL_S)


async def test_an_evicted_series_lists_exactly_without_a_download(tmp_path: Path) -> None:
    big, bigger = make_series("1.1", 1), make_series("1.9", 1, size_bytes=80_000)
    contents = {
        big.series_uid: [("1-7.dcm", bytes(50_000))],
        bigger.series_uid: [("1-1.dcm", bytes(80_000))],
    }
    async with running_core(tmp_path, contents=contents, limit_bytes=100_000) as core:
        await core.fetch(big)
        await core.fetch(bigger)
        assert core.store.state(big) == "evicted"
        assert await read(core.images.listing(big)) == [FoundImage("1-7.dcm", 50_000, FINAL_S)]
        assert await core.images.find(big, "1-7.dcm") == FoundImage("1-7.dcm", 50_000, FINAL_S)
        assert await core.images.find(big, "1-1.dcm") == FoundImage("1-7.dcm", 50_000, FINAL_S)
        assert core.fetched == [big.series_uid, bigger.series_uid]


async def test_a_new_version_of_a_known_series_is_an_unknown_series(quick: Core) -> None:
    await quick.fetch(THREE)
    assert quick.images.listing(make_series(THREE.series_uid, 4)) is None


@pytest.mark.parametrize("name", ["1-4.dcm", "1-01.dcm", "2-1.dcm", "0-0.dcm", "x.dcm", *PROBES])
async def test_a_name_that_a_known_series_does_not_have_is_none_and_starts_nothing(
    quick: Core, name: str
) -> None:
    await quick.fetch(THREE)
    assert await quick.images.find(THREE, name) is None
    assert quick.fetched == [THREE.series_uid]


# Coming in


async def test_an_unknown_series_has_no_listing_without_a_download(core: Core) -> None:
    assert core.images.listing(THREE) is None
    assert core.fetched == []


async def test_a_look_starts_one_download_and_lists_images_as_they_arrive(core: Core) -> None:
    listing = core.images.look(THREE)
    assert core.images.look(THREE) is not listing
    transfer = await core.fetcher.begun()
    for place, (name, data) in enumerate(IMAGES):
        assert listing.at(place) is None
        transfer.bring(name, data)
        await listing.wait_for(place)
        image = listing.at(place)
        assert image is not None
        assert (image.name, image.size_bytes) == (name, len(data))
    transfer.finish()
    await listing.wait_for(len(IMAGES))
    assert listing.at(len(IMAGES)) is None
    assert core.fetched == [THREE.series_uid]


async def test_a_listing_of_an_arriving_series_ends_only_when_all_is_verified(
    core: Core, autojump_clock: MockClock
) -> None:
    listing = core.images.look(THREE)
    transfer = await core.fetcher.begun()
    for name, data in IMAGES:
        transfer.bring(name, data)
    with trio.move_on_after(1.0) as waiting:
        await listing.wait_for(3)
    assert waiting.cancelled_caught
    transfer.finish()
    await listing.wait_for(3)


async def test_a_listing_of_a_series_that_turns_out_short_ends_in_its_error_behind_what_came(
    core: Core, expect_log: Callable[[str], None]
) -> None:
    expect_log("came with 1 of 3")
    listing = core.images.look(THREE)
    transfer = await core.fetcher.begun()
    transfer.bring(*IMAGES[0])
    transfer.end(SeriesDamaged("came with 1 of 3"))
    await listing.wait_for(0)
    assert listing.at(0) is not None
    with pytest.raises(SeriesDamaged):
        await listing.wait_for(1)


async def test_a_lone_image_of_another_size_than_listed_is_not_opened_and_its_pack_let_go(
    core: Core, tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("came with 7 of 4 bytes")
    opened: list[object] = []
    async with trio.open_nursery() as nursery:

        async def read_it() -> None:
            with pytest.raises(SeriesDamaged):
                opened.append(await core.images.open(LONE, "1-1.dcm"))

        nursery.start_soon(read_it)
        transfer = await core.fetcher.begun()
        transfer.bring("1-1.dcm", b"not lone")
        await wait_all_tasks_blocked()
        transfer.end(SeriesDamaged("came with 7 of 4 bytes"))
    assert opened == []
    assert files_open_below(tmp_path) == 0


def files_open_below(folder: Path) -> int:
    """Return how many packs in a folder this process has open."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(descriptor.readlink()).startswith(str(folder)) and "/incoming/" in str(
                descriptor.readlink()
            )
    return found


async def test_whoever_looks_at_an_arriving_series_shows_itself_by_its_first_image(quick: Core) -> None:
    first, *others = await read(quick.images.look(THREE))
    assert first.timeout_s == 0.0
    assert [image.timeout_s for image in others] == [ARRIVING_S, ARRIVING_S]


async def test_an_arriving_series_is_listed_without_being_asked_for_again(core: Core) -> None:
    core.store.fetch(THREE)
    transfer = await core.fetcher.begun()
    transfer.bring(*IMAGES[0])
    listing = core.images.listing(THREE)
    assert listing is not None
    await listing.wait_for(0)
    transfer.finish()
    assert await names_in(listing) == ["1-1.dcm"]


async def test_an_image_is_found_as_soon_as_it_is_in(core: Core) -> None:
    found: list[FoundImage | None] = []

    async def find(name: str) -> None:
        found.append(await core.images.find(THREE, name))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(find, "1-2.dcm")
        transfer = await core.fetcher.begun()
        transfer.bring(*IMAGES[0])
        await wait_all_tasks_blocked()
        assert found == []
        transfer.bring(*IMAGES[1])
        await wait_all_tasks_blocked()
        assert found == [FoundImage("1-2.dcm", 6, ARRIVING_S)]
        transfer.finish()


async def test_a_name_that_an_arriving_series_turns_out_not_to_have_is_none(core: Core) -> None:
    found: list[FoundImage | None] = []

    async def find() -> None:
        found.append(await core.images.find(THREE, "3-9.dcm"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(find)
        transfer = await core.fetcher.begun()
        for name, data in IMAGES:
            transfer.bring(name, data)
        await wait_all_tasks_blocked()
        assert found == []
        transfer.finish()
    assert found == [None]


@pytest.mark.parametrize("probe", PROBES)
async def test_a_probe_neither_starts_a_download_nor_waits_for_one(
    core: Core, probe: str, autojump_clock: MockClock
) -> None:
    assert await core.images.find(THREE, probe) is None
    assert core.fetched == []
    core.store.fetch(THREE)
    await core.fetcher.begun()
    with trio.fail_after(1.0):
        assert await core.images.find(THREE, probe) is None


@pytest.mark.parametrize("name", ["1-1.dcm", "000000.dcm", "1.2.840.113619.2.dcm", "IMAGE.DCM"])
async def test_any_name_that_an_archive_may_give_an_image_starts_the_download(
    tmp_path: Path, name: str
) -> None:
    async with running_core(tmp_path, contents={THREE.series_uid: [(name, b"data")]}) as core:
        assert await core.images.find(THREE, name) == FoundImage(name, 4, ARRIVING_S)
        assert core.fetched == [THREE.series_uid]


async def test_who_finds_and_who_looks_hear_the_failure_of_a_moment_ago(
    core: Core, expect_log: Callable[[str], None]
) -> None:
    expect_log("the line is cut")
    core.store.fetch(THREE)
    (await core.fetcher.begun()).end(Unreachable("the line is cut"))
    await wait_all_tasks_blocked()
    with pytest.raises(Unreachable):
        await core.images.find(THREE, "1-1.dcm")
    with pytest.raises(Unreachable):
        core.images.look(THREE)
    assert core.images.listing(THREE) is None
    assert len(core.fetched) == 1


async def test_a_wait_without_a_sign_of_life_is_bounded(core: Core, autojump_clock: MockClock) -> None:
    with pytest.raises(DeadlinePassed):
        await core.images.find(THREE, "1-1.dcm")
    listing = core.images.listing(THREE)
    assert listing is not None
    with pytest.raises(DeadlinePassed):
        await listing.wait_for(0)


async def test_offline_an_unknown_series_cannot_be_looked_at_but_walked_past(tmp_path: Path) -> None:
    async with running_core(tmp_path, offline=True) as core:
        with pytest.raises(Offline):
            core.images.look(THREE)
        with pytest.raises(Offline):
            await core.images.find(THREE, "1-1.dcm")
        assert await names_in(core.images.walk(THREE)) == ["1-1.dcm", "1-2.dcm", "1-3.dcm"]


# Of one image


async def test_a_series_of_one_image_of_known_size_is_certain_before_any_download(core: Core) -> None:
    certain = FoundImage("1-1.dcm", 4, CERTAIN_S)
    assert await read(core.images.listing(LONE)) == [certain]
    assert await core.images.find(LONE, "1-1.dcm") == certain
    assert core.fetched == []


@pytest.mark.parametrize("name", ["1-2.dcm", "1-01.dcm", "2-1.dcm", *PROBES])
async def test_any_other_name_in_a_series_of_one_is_none_without_a_download(core: Core, name: str) -> None:
    assert await core.images.find(LONE, name) is None
    assert core.fetched == []


async def test_a_lone_image_of_unknown_size_has_to_be_fetched(core: Core) -> None:
    assert core.images.listing(LONE_OF_UNKNOWN_SIZE) is None
    assert await names_in(core.images.walk(LONE_OF_UNKNOWN_SIZE)) == ["1-1.dcm"]


async def test_a_lone_image_is_listed_with_its_size_while_it_comes_in(core: Core) -> None:
    core.store.fetch(LONE)
    await core.fetcher.begun()
    assert await read(core.images.listing(LONE)) == [FoundImage("1-1.dcm", 4, CERTAIN_S)]


# Walked past


async def test_a_walk_gives_names_from_the_count_and_causes_no_download(core: Core) -> None:
    found = await read(core.images.walk(TWO_ACQUISITIONS))
    assert [image.name for image in found] == [f"1-{place:02}.dcm" for place in range(1, 13)]
    assert {(image.size_bytes, image.timeout_s) for image in found} == {(None, 0.0)}
    assert core.fetched == []


async def test_a_walk_past_a_series_of_unknown_count_has_no_names_to_give(core: Core) -> None:
    assert core.images.walk(make_series("1.2.0", None)) is None


async def test_a_walk_past_a_series_of_no_images_is_an_empty_folder(core: Core) -> None:
    assert await names_in(core.images.walk(make_series("1.2.0", 0))) == []


async def test_a_list_made_before_the_download_opens_every_image_exactly_once(quick: Core) -> None:
    listed = await names_in(quick.images.walk(TWO_ACQUISITIONS))
    opened = [await quick.images.find(TWO_ACQUISITIONS, name) for name in listed]
    assert sorted(image.name for image in opened if image) == sorted(name for name, _ in TWELVE)
    sizes = {name: len(data) for name, data in TWELVE}
    assert all(image and image.size_bytes == sizes[image.name] for image in opened)
    assert quick.fetched == [TWO_ACQUISITIONS.series_uid]


async def test_a_name_that_is_both_provisional_and_true_means_the_true_one(quick: Core) -> None:
    for found_while in ("arriving", "local"):
        found = await quick.images.find(TWO_ACQUISITIONS, "1-03.dcm")
        assert found is not None, found_while
        assert found.name == "1-03.dcm"


async def test_an_untrue_provisional_name_means_the_same_image_now_and_later(quick: Core) -> None:
    first = await quick.images.find(TWO_ACQUISITIONS, "1-07.dcm")
    assert first is not None
    assert first.name == "2-01.dcm"
    await quick.store.fetch(TWO_ACQUISITIONS).over.wait()
    again = await quick.images.find(TWO_ACQUISITIONS, "1-07.dcm")
    assert again == FoundImage("2-01.dcm", first.size_bytes, FINAL_S)


async def test_a_listing_made_after_the_download_shows_true_names_only(quick: Core) -> None:
    await names_in(quick.images.walk(TWO_ACQUISITIONS))
    await quick.fetch(TWO_ACQUISITIONS)
    assert await names_in(quick.images.listing(TWO_ACQUISITIONS)) == [name for name, _ in TWELVE]


async def test_a_walkers_listing_gives_the_sizes_of_images_that_came_in_meanwhile(core: Core) -> None:
    listing = core.images.walk(THREE)
    assert listing is not None
    core.store.fetch(THREE)
    transfer = await core.fetcher.begun()
    transfer.bring(*IMAGES[1])
    found = await read(listing)
    assert [(image.name, image.size_bytes) for image in found] == [
        ("1-1.dcm", None),
        ("1-2.dcm", 6),
        ("1-3.dcm", None),
    ]
    assert {image.timeout_s for image in found} == {0.0}
    transfer.finish()


async def test_a_walkers_listing_never_gives_a_size_to_a_name_that_turned_out_untrue(quick: Core) -> None:
    listing = quick.images.walk(TWO_ACQUISITIONS)
    await quick.fetch(TWO_ACQUISITIONS)
    sizes = {image.name: image.size_bytes for image in await read(listing)}
    assert sizes["1-06.dcm"] == 12
    assert sizes["1-07.dcm"] is None


async def test_aliases_of_many_series_do_not_pile_up(tmp_path: Path) -> None:
    many = [make_series(f"1.{number}", 2) for number in range(40)]
    contents = {one.series_uid: [("1-1.dcm", b"a"), ("2-1.dcm", b"b")] for one in many}
    async with running_core(tmp_path, contents=contents) as core:
        for one in many:
            found = await core.images.find(one, "1-2.dcm")
            assert found is not None
            assert found.name == "2-1.dcm"
        assert len(core.images._aliases._resolved) <= 16
        found = await core.images.find(many[0], "1-2.dcm")
        assert found is not None
        assert found.name == "2-1.dcm"


async def test_names_of_a_huge_series_are_resolved_once_for_all_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases_module, "RESOLVED_INLINE", 3)
    resolved: list[int] = []

    def counted(names: Sequence[str]) -> Mapping[str, int]:
        resolved.append(threading.get_ident())
        return resolve_aliases(names)

    monkeypatch.setattr(aliases_module, "resolve_aliases", counted)
    async with running_core(tmp_path, contents={TWO_ACQUISITIONS.series_uid: TWELVE}) as core:
        await core.fetch(TWO_ACQUISITIONS)
        found: list[FoundImage | None] = []

        async def find(name: str) -> None:
            found.append(await core.images.find(TWO_ACQUISITIONS, name))

        async with trio.open_nursery() as nursery:
            for number in range(7, 13):
                nursery.start_soon(find, f"1-{number:02}.dcm")
    assert {image.name for image in found if image} == {f"2-{place:02}.dcm" for place in range(1, 7)}
    assert len(resolved) == 1
    assert resolved != [threading.get_ident()]


async def test_aliases_are_bounded_by_their_number_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases_module, "REMEMBERED_ALIASES", 15)
    several = [make_series(f"1.{number}", 12) for number in range(4)]
    async with running_core(tmp_path, contents={one.series_uid: TWELVE for one in several}) as core:
        for one in several:
            assert await core.images.find(one, "1-07.dcm") is not None
        assert len(core.images._aliases._resolved) == 2


@given(st.text(max_size=12))
def test_what_may_be_an_image_ends_in_dcm_and_is_not_hidden(stem: str) -> None:
    assert not may_be_image(stem) or stem.lower().endswith(".dcm")
    assert not may_be_image("." + stem)
    assert may_be_image("1" + stem + ".dcm")


# Not named in advance


class NamesNothing:
    """An archive that was thought to name images in advance, and does not."""

    def __init__(self) -> None:
        self.asked = 0

    async def survey(self, series: Series) -> Sequence[ListedImage] | None:
        self.asked += 1
        return None


async def test_what_the_archive_does_not_name_in_advance_is_listed_as_it_comes_in(quick: Core) -> None:
    quick.store.surveys.surveyor = surveyor = NamesNothing()
    names = [each.name for each in await read(quick.images.look(THREE))]
    assert (names, surveyor.asked) == ([name for name, _ in IMAGES], 1)


async def test_a_name_is_found_though_the_archive_does_not_name_it_in_advance(quick: Core) -> None:
    quick.store.surveys.surveyor = NamesNothing()
    found = await quick.images.find(THREE, "1-2.dcm")
    assert found is not None
    assert found.size_bytes == 6
