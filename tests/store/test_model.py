"""The store against a plain dict: random reads, downloads, faults, restarts and crashes, checked after each.

Series come in whole, and images in part. The real store runs in an event loop in a thread of its own, and
rules are carried out there, one after the other. What is checked is what is on the disk, at each image that
arrives and after each rule, and not what the store believes.
"""

import errno
import logging
import os
import random
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tciafs.errors import NoSpace, SeriesDamaged, Unreachable, UnreadableAnswer
from tciafs.model import ListedImage, Series
from tciafs.store.disk import bytes_on_disk
from tciafs.store.download import Announcements, Download, Grant
from tciafs.store.layout import Layout, PackedImage, PackedImages
from tciafs.store.open_packs import OpenImage
from tciafs.store.pack import PackWriter
from tciafs.store.parts import BLOCK_BYTES, PartImage
from tciafs.store.store import Store, StoreConfig
from tests.fakes import ENDING_BYTES, make_series

LIMIT_BYTES = 130_000
PATIENCE_S = 30.0

IN_MEMORY = "/dev/shm"
"""Where nothing waits for a disk, if there is such a place."""

LISTED = {"1.0": 1.0, "1.1": 1.0, "1.2": None, "1.3": None, "1.4": 0.2, "1.5": 1.7}
"""Series, and what of their true size the archive lists; None: it does not say."""

COUNTS = [2, 3]
"""A series is listed with so many images; another number is another version of it."""

PART_FATES = ["whole", "whole", "unreachable", "short"]
"""What becomes of a part that is asked for."""

FATES = ["whole", "whole", "short", "damaged", "full", "not published"]


def images_of(uid: str, count: int) -> dict[str, bytes]:
    """Return what is in a version of a series: names, and bytes that no other image has."""
    bytes_from = random.Random(f"{uid} {count}")
    sizes = [bytes_from.choice([0, 1, 4000, 20_000, 60_000]) for _ in range(count)]
    return {f"1-{number}.dcm": bytes_from.randbytes(size) for number, size in enumerate(sizes, 1)}


def series_of(uid: str, count: int) -> Series:
    part = LISTED[uid]
    size_bytes = None if part is None else int(part * sum(map(len, images_of(uid, count).values())))
    return make_series(uid, count, size_bytes)


def layout_of(key: tuple[str, int]) -> Layout:
    """Return what a survey would tell of a version of a series."""
    images, end = PackedImages(), 0
    for name, data in CONTENTS[key].items():
        images.append(PackedImage(name, end, len(data), 0))
        end += len(data)
    return Layout(key[0], SERIES[key].version, images, (), SERIES[key].path)


CONTENTS = {(uid, count): images_of(uid, count) for uid in LISTED for count in COUNTS}
SERIES = {(uid, count): series_of(uid, count) for uid in LISTED for count in COUNTS}
BY_VERSION = {(series.series_uid, series.version): CONTENTS[key] for key, series in SERIES.items()}

keys = st.sampled_from(sorted(SERIES))


def packs_on_disk(folder: Path) -> int:
    """Return what packs take on the disk in whatever state: in place, coming in, or removed and open."""
    named = [file for part in ("series", "incoming") for file in (folder / part).rglob("*")]
    opened = [link for link in Path("/proc/self/fd").iterdir() if is_pack(folder, link)]
    taken = {}
    for file in (*named, *opened):
        with suppress(FileNotFoundError):  # it went meanwhile
            if stat.S_ISREG((status := file.stat()).st_mode):
                taken[status.st_ino] = bytes_on_disk(status)
    return sum(taken.values())


def is_pack(folder: Path, descriptor: Path) -> bool:
    with suppress(FileNotFoundError):
        return str(descriptor.readlink()).startswith((f"{folder}/series", f"{folder}/incoming"))
    return False


@dataclass(slots=True)
class FatefulFetcher:
    """Brings series as their fate wants it; the disk is looked at whenever a pack has grown."""

    folder: Path
    fates: dict[str, str] = field(default_factory=dict)

    def pause(self) -> None:
        """Nobody pauses here."""

    def resume(self) -> None:
        """Nobody pauses here."""

    async def fetch(self, series: Series, pack: Path, announce: Announcements, grant: Grant) -> None:
        fate = self.fates[series.series_uid]
        with closing(PackWriter(pack, grant.size_bytes)) as writer:
            for name, data in BY_VERSION[series.series_uid, series.version].items():
                await trio.lowlevel.checkpoint()
                wanted_bytes = writer.size_bytes + len(data) + ENDING_BYTES
                if wanted_bytes > writer.granted_bytes:
                    writer.granted_bytes = await grant.grow_to(wanted_bytes)
                writer.begin()
                writer.write(data)
                assert packs_on_disk(self.folder) <= LIMIT_BYTES
                if fate in ("short", "full"):
                    raise {"short": Unreachable("short"), "full": NoSpace("the disk is full")}[fate]
                announce.image(writer.end(name))
            if fate == "damaged":
                raise SeriesDamaged("damaged")
            layout = Layout(series.series_uid, series.version, writer.images, ("crc32",), series.path)
            announce.verified(layout.checks, layout.routes)
            writer.finish(layout)


@dataclass(slots=True)
class FatefulRanger:
    """Brings parts of images as their fate wants it."""

    folder: Path
    fate: str = "whole"

    def gives(self, series: Series) -> bool:
        return True

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        assert packs_on_disk(self.folder) <= LIMIT_BYTES
        if self.fate == "unreachable":
            raise Unreachable("away")
        part = BY_VERSION[series.series_uid, series.version][image.name][first : first + size_bytes]
        return part[:-1] if self.fate == "short" else part


class Daemon:
    """A store in an event loop in a thread."""

    def __init__(self, folder: Path) -> None:
        self.fetcher = FatefulFetcher(folder)
        self.ranger = FatefulRanger(folder)
        self._config = StoreConfig(folder, LIMIT_BYTES, patience_s=PATIENCE_S, failure_memory_s=0.0)
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        assert self._started.wait(PATIENCE_S)

    async def _main(self) -> None:
        self._token, self._end = trio.lowlevel.current_trio_token(), trio.Event()
        async with Store.running(self._config, self.fetcher) as self.store:
            self.store.ranged.ranger = self.ranger
            places = self.store._shelf._places
            places.put = partial(self._put, places.put)  # type: ignore[method-assign]
            self._started.set()
            await self._end.wait()

    def _put(self, really: Callable[[Path, str], None], incoming: Path, series_uid: str) -> None:
        if self.fetcher.fates[series_uid] == "not published":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        really(incoming, series_uid)

    def do(self, what: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Return what comes of something done in the loop."""
        return trio.from_thread.run(what, *args, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join(PATIENCE_S)


class StoreMachine(RuleBasedStateMachine):
    """`complete` are the versions whose layout must be known, `opened` the images that somebody reads.

    `pinned` are series, and `kept` those of them that have been here since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.around = Path(
            mkdtemp(prefix="tciafs-model-", dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None)
        )
        self.folder = self.around / "0"
        self.daemon = Daemon(self.folder)
        self.complete: dict[str, int] = {}
        self.opened: list[tuple[OpenImage, bytes]] = []
        self.parts: list[tuple[PartImage, bytes]] = []
        self.pinned: set[str] = set()
        self.kept: set[str] = set()

    @property
    def store(self) -> Store:
        return self.daemon.store

    # -- what happens -----------------------------------------------------------------------------

    @rule(wishes=st.dictionaries(keys, st.sampled_from(FATES), min_size=1, max_size=3))
    def fetch(self, wishes: dict[tuple[str, int], str]) -> None:
        """Have up to three series come in at the same time."""
        one_a_series = {uid: (uid, count) for uid, count in wishes}
        self.daemon.fetcher.fates = {key[0]: wishes[key] for key in one_a_series.values()}
        self.daemon.do(self._fetch, list(one_a_series.values()))

    async def _fetch(self, wanted: Sequence[tuple[str, int]]) -> None:
        downloads = [
            self.store.fetch(SERIES[key]) for key in wanted if self.store.state(SERIES[key]) != "local"
        ]
        with trio.fail_after(PATIENCE_S):
            for download in downloads:
                await download.over.wait()
            while self.store._nursery.child_tasks:
                await trio.lowlevel.checkpoint()
        for download in downloads:
            self._conclude(download)

    def _conclude(self, download: Download) -> None:
        uid, fate = download.series.series_uid, self.daemon.fetcher.fates[download.series.series_uid]
        if download.failure is None:
            assert fate == "whole"
            self.complete[uid] = download.series.image_count or 0
            self.kept |= self.pinned & {uid}
        else:
            assert fate != "whole" or isinstance(download.failure, NoSpace)
            if fate == "not published" and self.store.peek(download.series) is not None:
                self.complete[uid] = download.series.image_count or 0  # it was whole, and stays known

    @rule(key=keys, place=st.integers(0, 2))
    def open(self, key: tuple[str, int], place: int) -> None:
        """Open an image that is here; who does goes on reading for a while."""
        names = list(CONTENTS[key])
        name = names[place % len(names)]
        opened = self.daemon.do(self._open, SERIES[key], name)
        if opened is not None:
            assert self.complete.get(key[0]) == key[1]
            self.opened.append((opened, CONTENTS[key][name]))

    async def _open(self, series: Series, name: str) -> OpenImage | None:
        return self.store.open_local(series, name)

    @precondition(lambda self: self.opened)
    @rule(place=st.integers(0, 100))
    def close(self, place: int) -> None:
        opened, _ = self.opened.pop(place % len(self.opened))
        self.daemon.do(self._close, opened)

    async def _close(self, opened: OpenImage | PartImage) -> None:
        opened.close()

    @rule(key=keys, place=st.integers(0, 2), offset=st.integers(0, 50_000), fate=st.sampled_from(PART_FATES))
    def read_a_part(self, key: tuple[str, int], place: int, offset: int, fate: str) -> None:
        """Open an image that is not here whole, and read something of it; who does keeps it open."""
        names = list(CONTENTS[key])
        self.daemon.ranger.fate = fate
        self.daemon.do(self._read_a_part, key, names[place % len(names)], offset)

    async def _read_a_part(self, key: tuple[str, int], name: str, offset: int) -> None:
        if self.store.state(SERIES[key]) == "local":
            return
        layout = layout_of(key)
        image = layout.images.find(name)
        assert image is not None
        part = await self.store.ranged.open(SERIES[key], layout, image)
        self.parts.append((part, CONTENTS[key][name]))
        try:
            await self.store.ranged.bring(part, offset, 20_000)
        except (NoSpace, Unreachable, UnreadableAnswer):
            return
        assert part.read(offset, 20_000) == CONTENTS[key][name][offset : offset + 20_000]

    @precondition(lambda self: self.parts)
    @rule(place=st.integers(0, 100))
    def close_a_part(self, place: int) -> None:
        part, _ = self.parts.pop(place % len(self.parts))
        self.daemon.do(self._close, part)

    @rule(uid=st.sampled_from(list(LISTED)))
    def pin(self, uid: str) -> None:
        self.daemon.do(self.store.keeper.pin, make_series(uid).path)
        self.pinned.add(uid)
        if uid in self.complete and self.store.state(SERIES[uid, self.complete[uid]]) == "local":
            self.kept.add(uid)

    @rule(uid=st.sampled_from(list(LISTED)))
    def unpin(self, uid: str) -> None:
        self.daemon.do(self.store.keeper.unpin, make_series(uid).path)
        self.pinned.discard(uid)
        self.kept.discard(uid)

    @rule()
    def evict_all(self) -> None:
        """Drop all that may go."""
        self.daemon.do(self.store.keeper.evict, [], "")
        assert self.store.usage().series_count <= len(self.kept) + len(self.opened)

    @rule()
    def restart(self) -> None:
        """End well, and start again."""
        self._close_all()
        self.daemon.close()
        self.daemon = Daemon(self.folder)

    @rule()
    def crash(self) -> None:
        """Start from what is on the disk now, as if the process were gone."""
        after = self.around / str(int(self.folder.name) + 1)
        self.daemon.do(self._copy, after)
        self._close_all()
        self.daemon.close()
        shutil.rmtree(self.folder)
        self.folder, self.daemon = after, Daemon(after)

    async def _copy(self, after: Path) -> None:
        shutil.copytree(self.folder, after, ignore=shutil.ignore_patterns("lease"))

    def _close_all(self) -> None:
        while self.opened:
            self.close(0)
        while self.parts:
            self.close_a_part(0)

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def no_byte_is_wrong(self) -> None:
        self.daemon.do(self._read_all)

    async def _read_all(self) -> None:
        for key, images in CONTENTS.items():
            for name, data in images.items():
                if (local := self.store.open_local(SERIES[key], name)) is not None:
                    with closing(local):
                        assert local.read(0, 1_000_000) == data
        for opened, data in self.opened:
            assert opened.read(0, 1_000_000) == data
        for part, data in self.parts:
            for offset in range(0, len(data), BLOCK_BYTES):
                if not part.lacks(offset, BLOCK_BYTES):
                    assert part.read(offset, BLOCK_BYTES) == data[offset : offset + BLOCK_BYTES]

    @invariant()
    def what_was_complete_is_known(self) -> None:
        for uid, count in self.complete.items():
            known = self.store.peek(SERIES[uid, count])
            assert known is not None
            assert known.layout.images.names == list(CONTENTS[uid, count])

    @invariant()
    def the_limit_is_kept_and_all_is_counted(self) -> None:
        on_disk = packs_on_disk(self.folder)
        assert on_disk <= self.store._room.taken_bytes <= LIMIT_BYTES
        in_place = sum(bytes_on_disk(file.stat()) for file in (self.folder / "series").rglob("*.pack"))
        assert in_place == self.store.usage().used_bytes
        assert self.store.usage().series_count == len(list((self.folder / "series").rglob("*.pack")))

    @invariant()
    def what_is_pinned_stays(self) -> None:
        for uid in self.kept:
            assert self.store.state(SERIES[uid, self.complete[uid]]) == "local"

    @invariant()
    def nothing_is_left_over(self) -> None:
        held = sorted(each.path for each in self.store._parts._files.values())
        assert sorted(file for file in (self.folder / "incoming").rglob("*") if not file.is_dir()) == held
        assert self.store._room.reserved_bytes == 0
        assert self.store._shelf._ledger.unfinished() == []

    def teardown(self) -> None:
        self._close_all()
        self.daemon.close()
        shutil.rmtree(self.around)


@pytest.fixture
def _silent_log() -> Any:
    """What is logged differs from run to run; that it is logged is tested elsewhere."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_silent_log")
@pytest.mark.parametrize(("examples", "steps"), [(20, 25), pytest.param(200, 50, marks=pytest.mark.slow)])
def test_the_store_does_as_a_dict_would(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # what threads do is no more the same in a smaller example
        ),
    )
