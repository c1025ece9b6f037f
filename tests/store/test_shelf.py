"""The shelf: packs enter and leave whole, crashes leave nothing half-true, readers keep what they opened."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tciafs.errors import SeriesDamaged
from tciafs.model import Series
from tciafs.store import shelf as shelf_module
from tciafs.store.disk import bytes_on_disk
from tciafs.store.layout import Layout
from tciafs.store.shelf import SERIES_WEIGHS_IMAGES, Shelf
from tests.fakes import make_series, write_pack

SERIES = make_series("1.2.3")
NEWER = make_series("1.2.3", image_count=3)
OTHER = make_series("1.2.4")
IMAGES = (("1-1.dcm", b"first image"), ("1-2.dcm", b"second"))
NEWER_IMAGES = (("1-1.dcm", b"new"), ("1-2.dcm", b"newer"), ("1-3.dcm", b"newest"))


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with closing(Shelf(tmp_path)) as shelf:
        yield shelf


def incoming(shelf: Shelf, series: Series, *images: tuple[str, bytes]) -> tuple[Layout, Path]:
    file = shelf.new_pack(series)
    return write_pack(file, series, *images), file


def publish(shelf: Shelf, series: Series, *images: tuple[str, bytes]) -> Layout:
    layout, file = incoming(shelf, series, *images)
    with shelf.replacing(series.series_uid) as change:
        shelf.publish(layout, file, change)
    return layout


def evict(shelf: Shelf, series_uid: str) -> None:
    with shelf.leaving(series_uid) as change:
        shelf.remove_pack(change)


def on_disk(file: Path) -> int:
    return bytes_on_disk(file.stat())


def read(shelf: Shelf, series: Series, name: str) -> bytes | None:
    opened = shelf.open_local(series, name)
    if opened is None:
        return None
    with closing(opened):
        return opened.read(0, 1000)


def packs(folder: Path) -> list[Path]:
    return sorted((folder / "series").glob("*/*"))


def incoming_files(folder: Path) -> list[Path]:
    return [file for file in (folder / "incoming").rglob("*") if not file.is_dir()]


def descriptors(folder: Path) -> list[str]:
    """Return the packs that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the one that lists them
            continue
        if target.startswith(str(folder)) and "ledger" not in target:
            found.append(target)
    return found


def test_a_published_series_is_found_and_read(shelf: Shelf, tmp_path: Path) -> None:
    layout = publish(shelf, SERIES, *IMAGES)
    known = shelf.find(SERIES)
    assert known is not None
    assert (known.layout, known.layout.images.names) == (layout, ["1-1.dcm", "1-2.dcm"])
    assert [read(shelf, SERIES, name) for name, _ in IMAGES] == [data for _, data in IMAGES]
    assert read(shelf, SERIES, "9-9.dcm") is None
    assert shelf.used_bytes == known.pack_bytes == on_disk(packs(tmp_path)[0])
    assert incoming_files(tmp_path) == []


def test_what_was_never_published_is_unknown(shelf: Shelf) -> None:
    assert (shelf.find(SERIES), read(shelf, SERIES, "1-1.dcm")) == (None, None)


def test_another_version_of_a_series_is_unknown(shelf: Shelf) -> None:
    publish(shelf, SERIES, *IMAGES)
    assert (shelf.find(NEWER), read(shelf, NEWER, "1-1.dcm")) == (None, None)
    assert shelf.find(SERIES) is not None


def test_all_is_there_after_a_restart(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        layout = publish(shelf, SERIES, *IMAGES)
        used_bytes = shelf.used_bytes
    with closing(Shelf(tmp_path)) as shelf:
        known = shelf.find(SERIES)
        assert known is not None
        assert (known.layout, shelf.used_bytes) == (layout, used_bytes)
        assert read(shelf, SERIES, "1-2.dcm") == b"second"


@pytest.mark.parametrize("uid", ["../../etc/passwd", "", "x" * 5000, "1.2\0.3", "\udcff"])
def test_no_uid_leads_out_of_the_folder(shelf: Shelf, tmp_path: Path, uid: str) -> None:
    assert shelf.new_pack(make_series(uid)).parent.parent == tmp_path / "incoming"
    assert shelf._places.of(uid).parent.parent == tmp_path / "series"


# -- reading --


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 6, b"second"),
        (0, 99, b"second"),
        (4, 1, b"n"),
        (4, 9, b"nd"),
        (6, 1, b""),
        (99, 1, b""),
        (0, 0, b""),
    ],
)
def test_a_read_ends_with_its_image(shelf: Shelf, offset: int, length: int, expected: bytes) -> None:
    publish(shelf, SERIES, ("1-1.dcm", b"before"), ("1-2.dcm", b"second"), ("1-3.dcm", b"behind"))
    opened = shelf.open_local(SERIES, "1-2.dcm")
    assert opened is not None
    with closing(opened):
        assert opened.read(offset, length) == expected
        assert opened.read_at_hand(offset, length) == expected
        assert opened.version == SERIES.version


def test_a_pack_cut_short_on_disk_is_noticed(shelf: Shelf, tmp_path: Path) -> None:
    publish(shelf, SERIES, *IMAGES)
    opened = shelf.open_local(SERIES, "1-2.dcm")
    assert opened is not None
    os.truncate(packs(tmp_path)[0], 13)
    with closing(opened), pytest.raises(SeriesDamaged, match="cut short on disk"):
        opened.read(0, 6)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (BlockingIOError(errno.EAGAIN, "not now"), None),
        (OSError(errno.EOPNOTSUPP, "no such thing"), b"second"),
    ],
    ids=["not in memory", "the file system cannot tell"],
)
def test_what_has_to_be_waited_for_is_not_at_hand(
    failure: OSError, expected: bytes | None, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise failure

    publish(shelf, SERIES, *IMAGES)
    opened = shelf.open_local(SERIES, "1-2.dcm")
    assert opened is not None
    monkeypatch.setattr(os, "preadv", fail)
    with closing(opened):
        assert opened.read_at_hand(0, 99) == expected
        assert opened.read(0, 99) == b"second"


def test_what_is_only_partly_in_memory_is_not_at_hand(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(shelf, SERIES, *IMAGES)
    opened = shelf.open_local(SERIES, "1-2.dcm")
    assert opened is not None
    monkeypatch.setattr(os, "preadv", lambda *_: 3)
    with closing(opened):
        assert opened.read_at_hand(0, 99) is None


def test_readers_share_a_descriptor_and_the_last_one_closes_it(shelf: Shelf, tmp_path: Path) -> None:
    publish(shelf, SERIES, *IMAGES)
    first, second = shelf.open_local(SERIES, "1-1.dcm"), shelf.open_local(SERIES, "1-2.dcm")
    assert first is not None
    assert second is not None
    assert len(descriptors(tmp_path)) == 1
    first.close()
    assert (second.read(0, 9), shelf.in_use()) == (b"second", frozenset({"1.2.3"}))
    second.close()
    assert (descriptors(tmp_path), shelf.in_use()) == ([], frozenset())


def test_closing_the_shelf_closes_packs_and_a_late_reader_closes_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    publish(shelf, SERIES, *IMAGES)
    late = shelf.open_local(SERIES, "1-1.dcm")
    assert late is not None
    shelf.close()
    assert descriptors(tmp_path) == []
    somebody_elses = os.open(tmp_path / "other", os.O_CREAT | os.O_RDONLY)
    late.close()
    os.close(somebody_elses)  # would raise if the late reader had closed the number that is used again


def test_readers_of_a_replaced_version_keep_its_bytes(shelf: Shelf) -> None:
    publish(shelf, SERIES, *IMAGES)
    old = shelf.open_local(SERIES, "1-1.dcm")
    assert old is not None
    publish(shelf, NEWER, *NEWER_IMAGES)
    with closing(old):
        assert old.read(0, 99) == b"first image"
        assert read(shelf, NEWER, "1-1.dcm") == b"new"
        assert shelf.find(SERIES) is None


def test_a_series_is_hidden_while_its_pack_is_replaced(shelf: Shelf) -> None:
    publish(shelf, SERIES, *IMAGES)
    layout, file = incoming(shelf, NEWER, *NEWER_IMAGES)
    with shelf.replacing("1.2.3") as change:
        assert read(shelf, SERIES, "1-1.dcm") is None
        shelf.publish(layout, file, change)
        assert (read(shelf, SERIES, "1-1.dcm"), shelf.in_use()) == (None, frozenset({"1.2.3"}))
    assert read(shelf, NEWER, "1-1.dcm") == b"new"


def test_a_vanished_pack_is_noticed_and_no_longer_counted(
    shelf: Shelf, tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("pack of series 1.2.3 vanished")
    publish(shelf, SERIES, *IMAGES)
    packs(tmp_path)[0].unlink()
    assert read(shelf, SERIES, "1-1.dcm") is None
    known = shelf.find(SERIES)
    assert known is not None
    assert (known.pack_bytes, shelf.used_bytes) == (0, 0)


def test_the_pack_of_a_failed_download_is_shared_no_more(shelf: Shelf, tmp_path: Path) -> None:
    first_layout, first_file = incoming(shelf, SERIES, ("1-1.dcm", b"of the dead one"))
    reader = shelf.open(SERIES, first_layout.images[0], first_file)
    shelf.discard(SERIES)
    second_layout, second_file = incoming(shelf, SERIES, ("1-1.dcm", b"of the next"))
    with closing(shelf.open(SERIES, second_layout.images[0], second_file)) as next_reader:
        assert reader.read(0, 99) == b"of the dead one"
        reader.close()
        assert next_reader.read(0, 99) == b"of the next"
    assert descriptors(tmp_path) == []


def test_layouts_in_memory_are_bounded(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "REMEMBERED_IMAGES", 25)
    several = [make_series(f"1.{number}") for number in range(4)]
    for series in several:
        publish(shelf, series, *IMAGES)
        assert shelf.find(series) is not None
    assert (len(shelf._known), shelf._known_images) == (2, 2 * (2 + SERIES_WEIGHS_IMAGES))
    assert shelf.find(several[0]) is not None  # from the ledger
    assert list(shelf._known) == ["1.3", "1.0"]
    many = make_series("1.9", image_count=30)
    publish(shelf, many, *((f"1-{number}.dcm", b"") for number in range(30)))
    assert shelf.find(many) is not None
    assert (list(shelf._known), shelf._known_images) == (["1.9"], 30 + SERIES_WEIGHS_IMAGES)


# -- leaving --


def order_of_leaving(shelf: Shelf) -> list[str]:
    """Evict one after the other, and return in which order they went."""
    gone = []
    while uid := shelf.longest_unused():
        gone.append(uid)
        evict(shelf, uid)
    return gone


def test_the_longest_unused_goes_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1, 99))
    monkeypatch.setattr("tciafs.store.shelf.time.time", lambda: float(next(clock)))
    for series in (SERIES, OTHER):
        publish(shelf, series, *IMAGES)
        read(shelf, series, "1-1.dcm")
    shelf.flush_recency()
    assert shelf.longest_unused() == "1.2.3"
    read(shelf, SERIES, "1-1.dcm")
    assert shelf.longest_unused() == "1.2.4", "what is used comes last before that is written down"
    opened = shelf.open_local(OTHER, "1-1.dcm")
    assert opened is not None
    with closing(opened):
        assert order_of_leaving(shelf) == ["1.2.3"], "what is open stays"
    assert order_of_leaving(shelf) == ["1.2.4"]
    assert shelf.longest_unused() is None


def test_recency_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1, 99))
    monkeypatch.setattr("tciafs.store.shelf.time.time", lambda: float(next(clock)))
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        publish(shelf, OTHER, *IMAGES)
        read(shelf, OTHER, "1-1.dcm")
        read(shelf, SERIES, "1-1.dcm")
    with closing(Shelf(tmp_path)) as shelf:
        assert order_of_leaving(shelf) == ["1.2.4", "1.2.3"]


def test_uses_are_written_down_a_part_at_a_time(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "WRITTEN_AT_ONCE", 2)
    several = [make_series(f"1.{number}") for number in range(5)]
    for series in several:
        publish(shelf, series, *IMAGES)
    for series in reversed(several):
        read(shelf, series, "1-1.dcm")
    shelf.flush_recency()
    assert shelf._used_at == {}
    assert order_of_leaving(shelf) == ["1.4", "1.3", "1.2", "1.1", "1.0"]


def test_an_evicted_series_keeps_its_layout_and_none_of_its_bytes(shelf: Shelf, tmp_path: Path) -> None:
    layout = publish(shelf, SERIES, *IMAGES)
    publish(shelf, OTHER, *IMAGES)
    assert shelf.bytes_of(["1.2.3", "1.2.4", "9.9"]) == shelf.used_bytes
    assert shelf.series_count == 2
    left_bytes = shelf.bytes_of(["1.2.4"])
    evict(shelf, "1.2.3")
    assert len(packs(tmp_path)) == 1
    known = shelf.find(SERIES)
    assert known is not None
    assert (known.layout, known.pack_bytes, shelf.used_bytes) == (layout, 0, left_bytes)
    assert read(shelf, SERIES, "1-1.dcm") is None
    evict(shelf, "1.2.3")
    assert (shelf.used_bytes, shelf.series_count) == (left_bytes, 1)


def test_replacing_counts_the_new_bytes_and_not_the_old(shelf: Shelf, tmp_path: Path) -> None:
    publish(shelf, SERIES, *IMAGES)
    publish(shelf, NEWER, *NEWER_IMAGES)
    (pack,) = packs(tmp_path)
    assert shelf.used_bytes == on_disk(pack)


def test_what_cannot_be_written_down_does_not_stop_the_closing(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("last used could not be written down")
    shelf = Shelf(tmp_path)
    publish(shelf, SERIES, *IMAGES)
    reader = shelf.open_local(SERIES, "1-1.dcm")
    shelf._ledger._db.execute("PRAGMA query_only = 1")
    shelf.close()
    assert reader is not None
    assert descriptors(tmp_path) == []


def test_nobody_opens_what_is_being_removed(shelf: Shelf) -> None:
    layout = publish(shelf, SERIES, *IMAGES)
    with shelf.leaving("1.2.3") as change:
        assert read(shelf, SERIES, "1-1.dcm") is None
        with pytest.raises(FileNotFoundError):
            shelf.open(SERIES, layout.images[0])
        shelf.remove_pack(change)


# -- crashes --


def crash_before_the_rename(shelf: Shelf, series: Series, *images: tuple[str, bytes]) -> None:
    layout, file = incoming(shelf, series, *images)
    shelf._ledger.begin_publishing(layout, file.stat().st_size)


def crash_after_the_rename(shelf: Shelf, series: Series, *images: tuple[str, bytes]) -> None:
    layout, file = incoming(shelf, series, *images)
    shelf._ledger.begin_publishing(layout, file.stat().st_size)
    target = shelf._places.of(series.series_uid)
    target.parent.mkdir(exist_ok=True)
    file.rename(target)


def test_a_half_download_leaves_no_trace(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        shelf.new_pack(SERIES).write_bytes(b"half a")
    with closing(Shelf(tmp_path)) as shelf:
        assert (incoming_files(tmp_path), shelf.used_bytes, shelf.find(SERIES)) == (
            [],
            0,
            None,
        )


def bytes_known(shelf: Shelf, series: Series) -> int:
    known = shelf.find(series)
    assert known is not None, "what was learnt of a series that came in whole stays"
    return known.pack_bytes


def test_a_crash_before_the_rename_leaves_names_and_sizes(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        crash_before_the_rename(shelf, SERIES, *IMAGES)
    with closing(Shelf(tmp_path)) as shelf:
        assert (bytes_known(shelf, SERIES), shelf.used_bytes, shelf._ledger.unfinished()) == (0, 0, [])
        assert incoming_files(tmp_path) == []


def test_a_crash_after_the_rename_keeps_the_series(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        crash_after_the_rename(shelf, SERIES, *IMAGES)
    with closing(Shelf(tmp_path)) as shelf:
        assert read(shelf, SERIES, "1-2.dcm") == b"second"
        assert shelf.used_bytes == on_disk(packs(tmp_path)[0])


def test_a_crash_before_a_replacing_rename_keeps_the_old_version(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        crash_before_the_rename(shelf, NEWER, *NEWER_IMAGES)
    with closing(Shelf(tmp_path)) as shelf:
        assert shelf.find(NEWER) is None
        assert read(shelf, SERIES, "1-1.dcm") == b"first image"
        assert shelf.used_bytes == on_disk(packs(tmp_path)[0])


def test_a_crash_after_a_replacing_rename_keeps_the_new_version(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        crash_after_the_rename(shelf, NEWER, *NEWER_IMAGES)
    with closing(Shelf(tmp_path)) as shelf:
        assert (shelf.find(SERIES), read(shelf, NEWER, "1-3.dcm")) == (None, b"newest")


def test_a_torn_pack_of_a_crash_is_removed(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        crash_after_the_rename(shelf, SERIES, *IMAGES)
    os.truncate(packs(tmp_path)[0], 20)
    with closing(Shelf(tmp_path)) as shelf:
        assert (bytes_known(shelf, SERIES), packs(tmp_path), shelf.used_bytes) == (0, [], 0)


def test_a_crash_in_the_middle_of_an_eviction_finishes_it(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        shelf._ledger.evicted("1.2.3")
    with closing(Shelf(tmp_path)) as shelf:
        assert (packs(tmp_path), shelf.used_bytes, shelf.series_count) == ([], 0, 0)
        known = shelf.find(SERIES)
        assert known is not None
        assert known.pack_bytes == 0


def test_a_pack_that_somebody_removed_counts_no_more_after_a_restart(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        publish(shelf, OTHER, *IMAGES)
        shelf._places.of("1.2.3").unlink()
    with closing(Shelf(tmp_path)) as shelf:
        assert (shelf.used_bytes, shelf.series_count) == (on_disk(packs(tmp_path)[0]), 1)
        assert read(shelf, OTHER, "1-1.dcm") == b"first image"
        known = shelf.find(SERIES)
        assert known is not None
        assert known.pack_bytes == 0


def test_a_pack_that_the_ledger_never_heard_of_is_taken_up(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        shelf._ledger.drop("1.2.3")
    with closing(Shelf(tmp_path)) as shelf:
        assert read(shelf, SERIES, "1-1.dcm") == b"first image"
        assert shelf.used_bytes == on_disk(packs(tmp_path)[0])


@pytest.mark.parametrize("stray", ["series/stray", "series/ab/stray.pack"])
def test_what_is_no_pack_is_removed_at_the_start(
    tmp_path: Path, stray: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("stray.* is no pack of a series and is removed")
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_bytes(b"not mine")
    with closing(Shelf(tmp_path)) as shelf:
        assert read(shelf, SERIES, "1-1.dcm") == b"first image"
        assert len(packs(tmp_path)) == 1


def test_what_a_dead_daemon_left_can_put_nothing_into_the_cache_any_more(tmp_path: Path) -> None:
    with closing(Shelf(tmp_path)) as dead, closing(Shelf(tmp_path)):
        with pytest.raises(FileNotFoundError):
            incoming(dead, SERIES, *IMAGES)
        assert incoming_files(tmp_path) == []


def test_a_lost_ledger_costs_nothing_but_a_scan(tmp_path: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("the ledger of the cache is damaged")
    expect_log("torn.pack in the cache folder is no pack")
    expect_log("stray.pack in the cache folder is no pack")
    with closing(Shelf(tmp_path)) as shelf:
        publish(shelf, SERIES, *IMAGES)
        publish(shelf, OTHER, *IMAGES)
        used_bytes = shelf.used_bytes
        place = shelf._places.of("1.2.3")
    place.with_name("torn.pack").write_bytes(place.read_bytes()[:-1])
    place.with_name("stray.pack").write_bytes(place.read_bytes())
    (tmp_path / "ledger.sqlite").write_bytes(b"nonsense" * 1000)
    with closing(Shelf(tmp_path)) as shelf:
        assert (read(shelf, SERIES, "1-1.dcm"), read(shelf, OTHER, "1-2.dcm")) == (b"first image", b"second")
        assert (shelf.used_bytes, len(packs(tmp_path))) == (used_bytes, 2)


# -- publications that fail --


def test_a_failed_rename_leaves_the_old_version(shelf: Shelf, tmp_path: Path) -> None:
    publish(shelf, SERIES, *IMAGES)
    layout, file = incoming(shelf, NEWER, *NEWER_IMAGES)
    used_bytes = shelf.used_bytes

    def publish_what_is_gone() -> None:
        file.unlink()
        shelf.publish(layout, file, change)

    with pytest.raises(FileNotFoundError), shelf.replacing("1.2.3") as change:
        publish_what_is_gone()
    assert (read(shelf, SERIES, "1-1.dcm"), shelf.used_bytes) == (b"first image", used_bytes)


def test_a_failure_behind_the_rename_leaves_the_new_version(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    publish(shelf, SERIES, *IMAGES)
    monkeypatch.setattr("tciafs.store.places.sync_folder", fail)
    with pytest.raises(OSError, match="Input/output"):
        publish(shelf, NEWER, *NEWER_IMAGES)
    assert (shelf.find(SERIES), read(shelf, NEWER, "1-1.dcm")) == (None, b"new")
    assert shelf.used_bytes == on_disk(packs(tmp_path)[0])


def test_a_failure_before_the_first_rename_leaves_names_and_sizes(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, file = incoming(shelf, SERIES, *IMAGES)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"), shelf.replacing("1.2.3") as change:
        shelf.publish(layout, file, change)
    assert (bytes_known(shelf, SERIES), shelf.used_bytes, shelf._ledger.unfinished()) == (0, 0, [])


def test_a_shelf_that_cannot_recover_leaves_no_ledger_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "incoming" / "folder" / "folder").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        Shelf(tmp_path)
    assert descriptors(tmp_path) == []


@pytest.mark.parametrize("announced", [False, True])
def test_a_version_that_comes_back_while_it_is_open_is_read_from_its_own_pack(
    shelf: Shelf, announced: bool
) -> None:
    def publish(series: Series, *images: tuple[str, bytes]) -> None:
        layout, file = incoming(shelf, series, *images)
        opened = shelf.open(series, layout.images[0], file) if announced else None
        with shelf.replacing(series.series_uid) as change:
            shelf.publish(layout, file, change)
        if opened is not None:
            opened.close()

    publish(SERIES, *IMAGES)
    before = shelf.open_local(SERIES, "1-1.dcm")
    assert before is not None
    publish(NEWER, *NEWER_IMAGES)
    publish(SERIES, ("1-2.dcm", b"SECOND"), ("1-1.dcm", b"FIRST IMAGE"))
    with closing(before):
        for name, content in (("1-2.dcm", b"SECOND"), ("1-1.dcm", b"FIRST IMAGE")):
            after = shelf.open_local(SERIES, name)
            assert after is not None
            with closing(after):
                assert after.read(0, 99) == content
        assert before.read(0, 99) == b"first image"


def test_a_published_pack_is_the_same_each_time_it_is_opened_and_a_growing_one_is_not_named(
    shelf: Shelf,
) -> None:
    layout, file = incoming(shelf, SERIES, *IMAGES)
    with closing(shelf.open(SERIES, layout.images[0], file)) as growing:
        assert growing.identity is None
    with shelf.replacing(SERIES.series_uid) as change:
        shelf.publish(layout, file, change)
    identities = set()
    for _ in range(2):
        opened = shelf.open_local(SERIES, "1-1.dcm")
        assert opened is not None
        with closing(opened):
            identities.add(opened.identity)
    assert len(identities) == 1
    assert None not in identities
