"""The FUSE handlers without a kernel: answers, errno, offsets, handles and what the log says.

The rooms behind them are real but for the archive and the fetcher; pyfuse3's part in readdir is a fake.
"""

import errno
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from tciafs import errors
from tciafs.errors import NoSuchName, SeriesDamaged, SlowDown, TciafsError, Unreachable
from tciafs.filesystem.guard import Guard
from tciafs.filesystem.identities import ROOT_INODE
from tciafs.filesystem.interrupts import Interrupts
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.operations import BLOCK_BYTES, LONG_FOLDER_BLOCK_BYTES, NEGATIVE_TIMEOUT_S, Operations
from tciafs.model import Series
from tests.fakes import make_series
from tests.filesystem.fakes import CALLER, Core, context, running_core

SERIES = make_series("1.2.3", 3, size_bytes=15)
REVISED = make_series("1.2.3", 3, size_bytes=16)
IMAGES = [("1-1.dcm", b"one"), ("1-2.dcm", b"second"), ("1-3.dcm", b"third!")]
UNKNOWN = [make_series(f"1.2.4{number}", 2) for number in range(6)]
STUDY = ("Lung", "P1", "NA-NA-1.2")
FOLDER = (*STUDY, "NA-1.2.3")
IMAGE = (*FOLDER, "1-2.dcm")
CONTENTS = {SERIES.series_uid: IMAGES} | {
    one.series_uid: [("1-1.dcm", b"a"), ("2-1.dcm", b"bb")] for one in UNKNOWN
}

# pyfuse3 has a special type for inodes, which is a number.
inode_of: Callable[[Node], Any] = lambda node: node.inode  # noqa: E731


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, SERIES, *UNKNOWN, contents=CONTENTS) as core:
        yield core


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Core]:
    """The test moves the transfers itself."""
    async with running_core(tmp_path, SERIES, *UNKNOWN) as core:
        yield core


@dataclass
class Replies:
    """The buffer of a readdir: it takes `room` entries of each call, and refuses all others."""

    room: int = 1000
    taken: list[tuple[str, int, int, float]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _left: int = 0

    def begin(self) -> Any:
        self._left = self.room
        return self

    def add(self, name: bytes, entry: pyfuse3.EntryAttributes, next_place: int) -> bool:
        if not self._left:
            self.refused.append(os.fsdecode(name))
            return False
        self._left -= 1
        self.taken.append((os.fsdecode(name), entry.st_ino, next_place, entry.attr_timeout))
        return True

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.taken]


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Replies:
    def reply(token: Replies, name: bytes, entry: pyfuse3.EntryAttributes, next_place: int) -> bool:
        return token.add(name, entry, next_place)

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    return Replies()


async def opened_folder(core: Core, *names: str) -> int:
    return await core.operations.opendir(inode_of(await core.node(*names)), context())


async def read_folder(operations: Operations, handle: int, replies: Replies, start: int = 0) -> None:
    """Read a folder from an offset to its end, as the kernel does."""
    while True:
        before = len(replies.taken)
        await operations.readdir(handle, start, replies.begin())
        if len(replies.taken) == before:
            return
        start = replies.taken[-1][2]


async def errno_of(answer: Awaitable[object]) -> int:
    """Return the errno a handler answers with; anything but a bare FUSEError fails the test."""
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        await answer
    assert type(raised.value) is pyfuse3.FUSEError, repr(raised.value)
    return int(raised.value.errno)


# Errors


ALL_ERRORS = [
    each
    for name in errors.__all__
    if isinstance(each := getattr(errors, name), type) and issubclass(each, TciafsError)
]


def failing_with(core: Core, failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(core.tree, "child", fail)
    monkeypatch.setattr(core.tree, "attributes", fail)
    monkeypatch.setattr(core.tree, "listing", fail)


@pytest.mark.parametrize("kind", ALL_ERRORS)
async def test_each_error_of_ours_has_its_errno(
    core: Core, kind: type[TciafsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(core, kind("on purpose"), monkeypatch)
    assert await errno_of(core.operations.getattr(ROOT_INODE, context())) == kind.errno
    assert await errno_of(core.operations.opendir(ROOT_INODE, context())) == kind.errno


@pytest.mark.parametrize(
    "failure", [ValueError("x"), KeyError(1), OSError(errno.ENOSPC, "x"), RecursionError(), AssertionError()]
)
async def test_any_other_exception_is_an_io_error_and_is_logged_with_its_path(
    core: Core,
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log(r"ERROR .*lookup /Lung/P1 failed in an unexpected way")
    node = await core.node("Lung")
    failing_with(core, failure, monkeypatch)
    assert await errno_of(core.operations.lookup(inode_of(node), b"P1", context())) == errno.EIO


async def test_a_group_around_one_error_is_that_error(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [SlowDown("wait")])])
    failing_with(core, group, monkeypatch)
    assert await errno_of(core.operations.getattr(ROOT_INODE, context())) == errno.EBUSY


async def test_a_group_around_an_answer_is_that_answer(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(core, ExceptionGroup("a nursery", [pyfuse3.FUSEError(errno.ENODEV)]), monkeypatch)
    assert await errno_of(core.operations.getattr(ROOT_INODE, context())) == errno.ENODEV


async def test_a_group_of_several_errors_is_an_io_error(
    core: Core, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("getattr / failed in an unexpected way")
    failing_with(core, ExceptionGroup("both", [SlowDown("x"), Unreachable("y")]), monkeypatch)
    assert await errno_of(core.operations.getattr(ROOT_INODE, context())) == errno.EIO


async def test_a_cancellation_passes_through_a_handler(slow: Core) -> None:
    node = await slow.node(*FOLDER)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.operations.lookup, inode_of(node), b"1-1.dcm", context())
            transfer = await slow.fetcher.begun()
            scope.cancel()
    assert scope.cancelled_caught
    for name, data in IMAGES:
        transfer.bring(name, data)
    transfer.finish()


async def test_an_error_of_ours_is_logged_in_a_line_without_a_traceback(
    core: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tciafs")
    failing_with(core, Unreachable("the line is cut"), monkeypatch)
    await errno_of(core.operations.getattr(ROOT_INODE, context()))
    assert [record.getMessage() for record in caplog.records] == [
        f"getattr / for process {CALLER} (?): the line is cut"
    ]
    assert caplog.records[0].exc_info is None


async def test_a_handle_that_is_not_open_is_an_io_error_and_ends_nothing(
    core: Core, expect_log: Callable[[str], None]
) -> None:
    expect_log(r"read \(77, 0, 10\) failed in an unexpected way")
    assert await errno_of(core.operations.read(77, 0, 10)) == errno.EIO


@pytest.mark.parametrize(
    "handler",
    "create link mkdir mknod removexattr rename rmdir setattr setxattr symlink unlink write".split(),  # noqa: SIM905
)
async def test_every_writing_handler_says_that_the_file_system_is_read_only(core: Core, handler: str) -> None:
    write: Callable[..., Awaitable[object]] = getattr(core.operations, handler)
    assert await errno_of(write(ROOT_INODE, b"name", context())) == errno.EROFS


async def test_no_handler_of_pyfuse3_is_left_that_could_write(core: Core) -> None:
    ours = vars(Operations)
    answering = {"init", "stacktrace", "readlink", "fsync", "fsyncdir", "poll", "flush"}
    handlers = {
        name
        for name, value in vars(pyfuse3.Operations).items()
        if callable(value) and not name.startswith("_")
    }
    assert handlers - ours.keys() - answering == set()


# Names and attributes


async def test_a_lookup_answers_with_attributes_and_counts(core: Core) -> None:
    entry = await core.operations.lookup(ROOT_INODE, b"Lung", context())
    assert stat.S_ISDIR(entry.st_mode)
    assert stat.S_IMODE(entry.st_mode) == 0o555
    assert (entry.st_uid, entry.st_gid) == (1000, 100)
    assert core.tree.node(entry.st_ino).lookups == 1
    await core.operations.lookup(ROOT_INODE, b"Lung", context())
    assert core.tree.node(entry.st_ino).lookups == 2


async def test_an_image_is_a_read_only_file_of_its_true_size(core: Core) -> None:
    folder = await core.node(*FOLDER)
    entry = await core.operations.lookup(inode_of(folder), b"1-2.dcm", context())
    assert stat.S_ISREG(entry.st_mode)
    assert stat.S_IMODE(entry.st_mode) == 0o444
    assert (entry.st_size, entry.st_blocks, entry.st_nlink) == (6, 1, 1)


async def test_folders_that_may_be_long_are_read_in_larger_pieces(core: Core) -> None:
    blocks = {}
    for names in ((), STUDY[:1], STUDY[:2], STUDY, FOLDER, IMAGE):
        entry = await core.operations.getattr(inode_of(await core.node(*names)), context())
        blocks[names[-1:]] = entry.st_blksize
    long, short = LONG_FOLDER_BLOCK_BYTES, BLOCK_BYTES
    assert list(blocks.values()) == [short, long, short, short, long, short]


async def test_a_name_that_does_not_exist_is_a_negative_entry_for_a_while(core: Core) -> None:
    entry = await core.operations.lookup(ROOT_INODE, b"No such", context())
    assert (entry.st_ino, entry.entry_timeout) == (0, NEGATIVE_TIMEOUT_S)
    assert len(core.tree) == 1


async def test_a_name_that_is_no_unicode_is_looked_up_and_not_found(core: Core) -> None:
    entry = await core.operations.lookup(ROOT_INODE, b"\xff\xfe\x00\n", context())
    assert entry.st_ino == 0


async def test_a_parent_that_the_kernel_was_not_told_of_is_a_negative_entry_or_no_such_name(
    core: Core,
) -> None:
    assert await errno_of(core.operations.getattr(12345, context())) == errno.ENOENT
    assert await errno_of(core.operations.opendir(12345, context())) == errno.ENOENT


async def test_an_alias_is_the_inode_of_the_image_it_means(tmp_path: Path) -> None:
    async with running_core(tmp_path, UNKNOWN[0], contents=CONTENTS) as core:
        (study,) = [await core.node(*STUDY)]
        series = await core.operations.lookup(inode_of(study), b"NA-.2.40", context())
        true = await core.operations.lookup(series.st_ino, b"2-1.dcm", context())
        alias = await core.operations.lookup(series.st_ino, b"1-2.dcm", context())
        assert alias.st_ino == true.st_ino != 0
        assert core.tree.node(alias.st_ino).lookups == 2


async def test_forget_never_raises_and_frees(core: Core) -> None:
    node = await core.node(*IMAGE)
    await core.operations.forget([(node.inode, 1), (node.inode, 5), (ROOT_INODE, 3), (999, 1)])
    assert not core.tree.knows(node.inode)


@pytest.mark.parametrize(("mode", "is_allowed"), [(os.R_OK, True), (os.X_OK, True), (os.W_OK, False)])
async def test_access_allows_all_but_writing(core: Core, mode: int, is_allowed: bool) -> None:
    assert await core.operations.access(ROOT_INODE, mode, context()) == is_allowed


# Folders


@pytest.mark.parametrize("names", [STUDY[:2], STUDY], ids=["patient", "study"])
async def test_a_folder_whose_listing_is_known_is_opened_without_a_wait(
    core: Core, replies: Replies, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    await read_folder(core.operations, await opened_folder(core, *names), replies)
    first, replies.taken = replies.taken, []
    node = await core.node(*names)
    core.tree.folders.clear()
    monkeypatch.setattr(Interrupts, "watching", None)
    handle = await core.operations.opendir(inode_of(node), context())
    await read_folder(core.operations, handle, replies)
    assert [each[:3] for each in replies.taken] == [each[:3] for each in first]
    assert first


async def test_a_folder_is_read_once_with_offsets_that_count_its_entries(
    core: Core, replies: Replies
) -> None:
    handle = await opened_folder(core, *STUDY)
    await read_folder(core.operations, handle, replies)
    names = ["NA-1.2.3", *(f"NA-.2.4{number}" for number in range(6))]
    assert sorted(replies.names) == sorted(names)
    assert [place for _, _, place, _ in replies.taken] == list(range(1, 8))


@pytest.mark.parametrize("start", range(9))
async def test_a_folder_can_be_read_on_from_any_offset(core: Core, replies: Replies, start: int) -> None:
    handle = await opened_folder(core, *STUDY)
    await read_folder(core.operations, handle, replies)
    whole = list(replies.names)
    replies.taken.clear()
    await read_folder(core.operations, handle, replies, start)
    assert replies.names == whole[start:]


@pytest.mark.parametrize("room", [1, 2, 3, 7])
async def test_an_entry_that_does_not_fit_is_neither_lost_nor_counted(
    core: Core, replies: Replies, room: int
) -> None:
    replies.room = room
    handle = await opened_folder(core, *STUDY)
    await read_folder(core.operations, handle, replies)
    assert len(replies.names) == len(set(replies.names)) == 7
    for _, inode, _, _ in replies.taken:
        assert core.tree.node(inode).lookups == 1


async def test_an_entry_that_is_refused_at_once_is_not_known_to_the_kernel(
    core: Core, replies: Replies
) -> None:
    replies.room = 0
    handle = await opened_folder(core)
    before = len(core.tree)
    await core.operations.readdir(handle, 0, replies.begin())
    assert replies.refused == ["Lung"]
    assert len(core.tree) == before


async def test_entries_of_a_long_folder_are_counted_once_the_kernel_has_them_and_nobody_asks(
    tmp_path: Path, replies: Replies
) -> None:
    many = [replace(SERIES, patient_id=f"P{number:03}", series_uid=f"1.{number}") for number in range(300)]
    async with running_core(tmp_path, *many) as core:
        handle = await opened_folder(core, "Lung")
        replies.room = 200
        await core.operations.readdir(handle, 0, replies.begin())
        first, last = replies.taken[0][1], replies.taken[-1][1]
        assert first not in core.tree.nodes, "it is not left for later"
        await wait_all_tasks_blocked()
        assert (core.tree.nodes[first].lookups, core.tree.nodes[last].lookups) == (1, 1)
        await read_folder(core.operations, handle, replies, 200)
        assert len(core.tree) == 3 + 300, "the root, the collection, its licence, and its patients"
        assert sum(node.lookups for node in core.tree.nodes.values()) == 3 + 300


async def test_reading_a_folder_names_neither_itself_nor_the_one_above(core: Core, replies: Replies) -> None:
    await read_folder(core.operations, await opened_folder(core), replies)
    assert replies.names == ["Lung"]


async def test_a_series_that_turns_out_short_gives_what_came_and_then_its_error(
    slow: Core, replies: Replies, expect_log: Callable[[str], None]
) -> None:
    expect_log("came short")
    handle = await opened_folder(slow, *FOLDER)
    transfer = await slow.fetcher.begun()
    transfer.bring(*IMAGES[0])
    transfer.end(SeriesDamaged("it came short"))
    await wait_all_tasks_blocked()
    await slow.operations.readdir(handle, 0, replies.begin())
    assert replies.names == ["1-1.dcm"]
    assert await errno_of(slow.operations.readdir(handle, 1, replies.begin())) == errno.EIO


async def test_a_read_of_an_arriving_folder_answers_with_what_is_in_and_then_waits(
    slow: Core, replies: Replies
) -> None:
    handle = await opened_folder(slow, *FOLDER)
    transfer = await slow.fetcher.begun()
    transfer.bring(*IMAGES[0])
    await slow.operations.readdir(handle, 0, replies.begin())
    assert replies.names == ["1-1.dcm"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_folder, slow.operations, handle, replies, 1)
        await wait_all_tasks_blocked()
        for image in IMAGES[1:]:
            transfer.bring(*image)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks, "it ends only when the series is verified"
        transfer.finish()
    assert replies.names == ["1-1.dcm", "1-2.dcm", "1-3.dcm"]


async def test_the_fourth_unknown_series_in_a_row_is_walked_past(core: Core, replies: Replies) -> None:
    study = await core.node(*STUDY)
    for number in range(4):
        folder = await core.operations.lookup(inode_of(study), b"NA-.2.4%d" % number, context())
        handle = await core.operations.opendir(folder.st_ino, context())
        await read_folder(core.operations, handle, replies)
    assert replies.names == ["1-1.dcm", "2-1.dcm"] * 3 + ["1-1.dcm", "1-2.dcm"]
    assert core.fetched == [one.series_uid for one in UNKNOWN[:3]]
    assert [timeout_s for *_, timeout_s in replies.taken[-2:]] == [0.0, 0.0]


async def test_who_probes_each_folder_for_a_name_of_its_own_still_walks(core: Core) -> None:
    study = await core.node(*STUDY)
    for number in range(4):
        folder = await core.operations.lookup(inode_of(study), b"NA-.2.4%d" % number, context())
        await core.operations.opendir(folder.st_ino, context())
        await core.operations.lookup(folder.st_ino, b".nomedia", context())
    await core.fetcher.begun(3)
    assert set(core.fetched) == {one.series_uid for one in UNKNOWN[:3]}


async def test_a_crawler_reads_what_is_here_and_causes_no_download(
    core: Core, replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    await core.fetch(SERIES)
    image = await core.node(*IMAGE)
    study = await core.node(*STUDY)
    crawlers = Guard(crawlers=("crawler",), names=lambda pid: ("crawler",))
    monkeypatch.setattr(core.operations, "_guard", crawlers)
    opened = await core.operations.open(inode_of(image), os.O_RDONLY, context())
    assert await core.operations.read(opened.fh, 0, 100) == b"second"
    unknown = await core.operations.lookup(inode_of(study), b"NA-.2.40", context())
    handle = await core.operations.opendir(unknown.st_ino, context())
    await read_folder(core.operations, handle, replies)
    assert replies.names == ["1-1.dcm", "1-2.dcm"]
    assert await errno_of(core.operations.lookup(unknown.st_ino, b"1-1.dcm", context())) == errno.EPERM
    assert await errno_of(core.operations.getattr(replies.taken[0][1], context())) == errno.EPERM
    assert core.fetched == [SERIES.series_uid]


async def test_a_crawler_sees_a_lone_image_and_may_not_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = make_series("1.2.5", 1, size_bytes=4)
    async with running_core(tmp_path, lone, contents={lone.series_uid: [("1-1.dcm", b"lone")]}) as core:
        image = await core.node(*STUDY, "NA-1.2.5", "1-1.dcm")
        crawlers = Guard(crawlers=("crawler",), names=lambda pid: ("crawler",))
        monkeypatch.setattr(core.operations, "_guard", crawlers)
        assert (await core.operations.getattr(inode_of(image), context())).st_size == 4
        opening = core.operations.open(inode_of(image), os.O_RDONLY, context())
        assert await errno_of(opening) == errno.EPERM
        assert core.fetched == []


async def test_a_lone_image_opens_though_it_came_in_under_another_name(tmp_path: Path) -> None:
    lone = make_series("1.2.5", 1, size_bytes=4)
    contents = {lone.series_uid: [("00000001.dcm", b"lone")]}
    async with running_core(tmp_path, lone, contents=contents) as core:
        image = await core.node(*STUDY, "NA-1.2.5", "1-1.dcm")
        opened = await core.operations.open(inode_of(image), os.O_RDONLY, context())
        assert await core.operations.read(opened.fh, 0, 100) == b"lone"


@pytest.mark.parametrize("touch", ["lookup", "open"])
async def test_who_looks_up_or_opens_an_image_between_folders_does_not_walk(
    core: Core, replies: Replies, touch: str
) -> None:
    image = await core.node(*IMAGE)
    study = await core.node(*STUDY)
    for number in range(6):
        folder = await core.operations.lookup(inode_of(study), b"NA-.2.4%d" % number, context())
        await core.operations.opendir(folder.st_ino, context())
        if touch == "lookup":
            await core.operations.lookup(folder.st_ino, b"1-1.dcm", context())
        else:
            opened = await core.operations.open(inode_of(image), os.O_RDONLY, context())
            await core.operations.release(opened.fh)
    await core.fetcher.begun(6 if touch == "lookup" else 7)
    assert set(core.fetched) >= {one.series_uid for one in UNKNOWN}


@pytest.mark.parametrize(("mode", "fetched"), [("names", 0), ("exact", 6)])
async def test_the_modes_names_and_exact_never_and_always_fetch(
    tmp_path: Path, replies: Replies, mode: Any, fetched: int
) -> None:
    async with running_core(tmp_path, *UNKNOWN, contents=CONTENTS, mode=mode) as core:
        study = await core.node(*STUDY)
        for number in range(6):
            folder = await core.operations.lookup(inode_of(study), b"NA-.2.4%d" % number, context())
            handle = await core.operations.opendir(folder.st_ino, context())
            await read_folder(core.operations, handle, replies)
        assert len(core.fetched) == fetched
        assert len(replies.names) == 12


async def test_listing_a_known_series_is_no_look(core: Core) -> None:
    await core.fetch(SERIES)
    node = await core.node(*FOLDER)
    for _ in range(10):
        handle = await core.operations.opendir(inode_of(node), context())
        await core.operations.releasedir(handle)
    study = await core.node(*STUDY)
    folder = await core.operations.lookup(inode_of(study), b"NA-.2.40", context())
    await core.operations.opendir(folder.st_ino, context())
    await core.fetcher.begun(2)
    assert core.fetched == [SERIES.series_uid, UNKNOWN[0].series_uid]


async def test_the_licence_is_listed_without_its_size_and_has_it_when_asked(
    core: Core, replies: Replies
) -> None:
    await read_folder(core.operations, await opened_folder(core, "Lung"), replies)
    assert replies.names == ["P1", "LICENSE"]
    assert replies.taken[-1][3] == 0.0
    assert not [question for question in core.archive.asked if question[0] == "series"]
    entry = await core.operations.getattr(replies.taken[-1][1], context())
    opened = await core.operations.open(replies.taken[-1][1], os.O_RDONLY, context())
    text = await core.operations.read(opened.fh, 0, 10_000)
    assert len(text) == entry.st_size > 100
    assert await core.operations.read(opened.fh, 8, 4) == text[8:12]
    assert await core.operations.read(opened.fh, len(text), 4) == b""
    await core.operations.release(opened.fh)


# Files


async def test_an_image_is_read_in_any_piece(core: Core) -> None:
    opened = await core.operations.open(inode_of(await core.node(*IMAGE)), os.O_RDONLY, context())
    read = core.operations.read
    assert await read(opened.fh, 0, 100) == b"second"
    assert await read(opened.fh, 2, 2) == b"co"
    assert await read(opened.fh, 5, 10) == b"d"
    assert await read(opened.fh, 6, 10) == b""
    assert await read(opened.fh, 1000, 10) == b""


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND])
async def test_opening_for_writing_is_refused_and_downloads_nothing(slow: Core, flags: int) -> None:
    lone = make_series("1.2.99", 1, size_bytes=5)
    slow.archive.holdings.append(lone)
    node = await slow.node(*STUDY, "NA-.2.99", "1-1.dcm")
    assert await errno_of(slow.operations.open(inode_of(node), flags, context())) == errno.EROFS
    assert slow.fetched == []


async def test_opening_with_other_flags_of_reading_is_reading(core: Core) -> None:
    node = await core.node(*IMAGE)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    assert (await core.operations.open(inode_of(node), flags, context())).fh


async def test_the_kernel_keeps_its_pages_until_the_series_has_another_version(core: Core) -> None:
    await core.fetch(SERIES)
    node = await core.node(*IMAGE)

    async def keeps() -> bool:
        opened = await core.operations.open(inode_of(node), os.O_RDONLY, context())
        await core.operations.release(opened.fh)
        return bool(opened.keep_cache)

    assert not await keeps()
    assert await keeps()
    await core.revise(REVISED)
    assert not await keeps()  # opened while it came in
    if (coming_in := core.store.peek_download(REVISED)) is not None:
        await coming_in.over.wait()
    assert not await keeps()  # published
    assert await keeps()
    await core.operations.forget([(node.inode, node.lookups)])
    assert core.operations._handles._pages == {}


async def test_while_two_versions_are_open_the_newer_stays_out_of_the_page_cache(core: Core) -> None:
    await core.fetch(SERIES)
    node = await core.node(*IMAGE)
    old = await core.operations.open(inode_of(node), os.O_RDONLY, context())
    await core.revise(REVISED)
    new = await core.operations.open(inode_of(node), os.O_RDONLY, context())
    assert (old.direct_io, new.direct_io) == (False, True)
    await core.operations.release(new.fh)
    await core.operations.release(old.fh)
    later = await core.operations.open(inode_of(node), os.O_RDONLY, context())
    assert (later.direct_io, later.keep_cache) == (False, False)


@pytest.mark.expect_log("ended without being verified")
async def test_pages_of_a_series_that_failed_its_checks_are_not_kept(slow: Core) -> None:
    slow.store.fetch(SERIES)
    transfer = await slow.fetcher.begun()
    for name, data in IMAGES:
        transfer.bring(name, data)
    node = await slow.node(*IMAGE)
    opened = await slow.operations.open(inode_of(node), os.O_RDONLY, context())
    await slow.operations.release(opened.fh)
    assert slow.operations._handles._pages[node.inode].of_pack is None
    transfer.end()


async def test_an_image_that_is_no_longer_in_its_series_does_not_open(core: Core) -> None:
    node = await core.node(*IMAGE)
    node.key = "1-9.dcm"
    assert await errno_of(core.operations.open(inode_of(node), os.O_RDONLY, context())) == errno.ENOENT


async def test_handles_are_never_used_twice_and_all_are_closed(core: Core) -> None:
    await core.fetch(SERIES)
    image, folder = await core.node(*IMAGE), await core.node(*FOLDER)
    handles: list[int] = []
    for _ in range(5):
        opened = await core.operations.open(inode_of(image), os.O_RDONLY, context())
        directory = await core.operations.opendir(inode_of(folder), context())
        handles += [opened.fh, directory]
        await core.operations.release(opened.fh)
        await core.operations.releasedir(directory)
    assert len(set(handles)) == 10
    assert core.operations._handles._opened == {}
    assert core.store._shelf._open.series_uids() == frozenset(), "the pack is closed with its last reader"


async def test_closing_the_mount_closes_what_is_still_open(core: Core) -> None:
    await core.fetch(SERIES)
    image, licence = await core.node(*IMAGE), await core.node("Lung", "LICENSE")
    await core.operations.open(inode_of(image), os.O_RDONLY, context())
    await core.operations.open(inode_of(licence), os.O_RDONLY, context())
    await opened_folder(core, *FOLDER)
    core.operations.close()
    assert core.operations._handles._opened == {}
    assert core.store._shelf._open.series_uids() == frozenset()


async def test_a_release_of_what_is_not_open_is_harmless(core: Core) -> None:
    await core.operations.release(12345)
    await core.operations.releasedir(12345)


async def test_closing_the_interrupts_ends_waiting_requests_with_eintr(slow: Core) -> None:
    node = await slow.node(*FOLDER)
    seen: list[int] = []

    async def look_up() -> None:
        seen.append(await errno_of(slow.operations.lookup(inode_of(node), b"1-1.dcm", context())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_up)
        transfer = await slow.fetcher.begun()
        await wait_all_tasks_blocked()
        slow.interrupts.close()
    assert seen == [errno.EINTR]
    transfer.finish()


# The cache as a file system, and attributes


async def test_statfs_shows_the_cache_and_asks_nobody(core: Core) -> None:
    empty = await core.operations.statfs(context())
    assert empty.f_bsize == empty.f_frsize == 4096
    assert empty.f_blocks == 1_000_000 // 4096
    assert empty.f_bfree == empty.f_bavail == 1_000_000 // 4096
    assert empty.f_namemax == 255
    await core.fetch(make_like(UNKNOWN[0], bytes(100_000), core))
    used = await core.operations.statfs(context())
    assert used.f_bavail == core.store.usage().free_bytes // 4096 < empty.f_bavail - 20
    assert core.archive.asked == []


def make_like(series: Series, data: bytes, core: Core) -> Series:
    core.fetcher.contents[series.series_uid] = [("1-1.dcm", data)]
    return series


async def xattrs(core: Core, node: Node) -> dict[str, str]:
    names = await core.operations.listxattr(inode_of(node), context())
    return {
        name.decode(): (await core.operations.getxattr(inode_of(node), name, context())).decode()
        for name in names
    }


async def test_all_attributes_that_are_listed_can_be_read(core: Core) -> None:
    assert await xattrs(core, core.tree.root) == {}
    assert await xattrs(core, await core.node("Lung", "P1")) == {
        "user.tcia.Collection": "Lung",
        "user.tcia.PatientID": "P1",
    }
    assert await xattrs(core, await core.node("Lung", "LICENSE")) == {"user.tcia.Collection": "Lung"}
    series = await xattrs(core, await core.node(*FOLDER))
    assert series["user.tciafs.state"] == "remote"
    assert series["user.tcia.SeriesInstanceUID"] == "1.2.3"


async def test_attributes_of_an_image_are_those_of_its_series(core: Core) -> None:
    image = await core.node(*IMAGE)
    await core.fetch(SERIES)
    attributes = {
        name: await core.operations.getxattr(inode_of(image), name, context())
        for name in (b"user.tcia.Modality", b"user.tciafs.state", b"user.tciafs.verified")
    }
    assert list(attributes.values()) == [b"CT", b"local", b"crc32"]


@pytest.mark.parametrize("name", [b"security.selinux", b"security.capability", b"system.posix_acl_access"])
async def test_attributes_of_other_kinds_are_not_supported(core: Core, name: bytes) -> None:
    assert await errno_of(core.operations.getxattr(ROOT_INODE, name, context())) == errno.ENOTSUP


@pytest.mark.parametrize("name", [b"user.tcia.Nonsense", b"user.tcia.SOPInstanceUID", b"user.\xff"])
async def test_an_attribute_that_is_not_there_is_no_data(core: Core, name: bytes) -> None:
    node = await core.node(*FOLDER)
    assert await errno_of(core.operations.getxattr(inode_of(node), name, context())) == errno.ENODATA


async def test_asking_for_attributes_never_starts_a_download(slow: Core) -> None:
    node = await slow.node(*FOLDER)
    for name in (b"user.tcia.SOPInstanceUID", b"user.tciafs.error"):
        assert await errno_of(slow.operations.getxattr(inode_of(node), name, context())) == errno.ENODATA
    assert await slow.operations.getxattr(inode_of(node), b"user.tciafs.state", context()) == b"remote"
    await slow.operations.listxattr(inode_of(node), context())
    assert slow.fetched == []


async def test_the_last_failure_of_a_series_is_an_attribute(
    slow: Core, expect_log: Callable[[str], None]
) -> None:
    expect_log("the line is cut")
    node = await slow.node(*FOLDER)
    slow.store.fetch(SERIES)
    (await slow.fetcher.begun()).end(Unreachable("the line is cut"))
    await wait_all_tasks_blocked()
    value = await slow.operations.getxattr(inode_of(node), b"user.tciafs.error", context())
    assert value.startswith(b"the line is cut. Check the network")


async def test_the_root_shows_the_time_of_the_mount(core: Core) -> None:
    entry = await core.operations.getattr(ROOT_INODE, context())
    assert 0 <= time.time_ns() - entry.st_mtime_ns < 600 * 10**9
    assert entry.st_mtime_ns == entry.st_ctime_ns == entry.st_atime_ns


def test_the_callers_of_these_tests_do_not_exist() -> None:
    assert not Path(f"/proc/{CALLER}").exists()
    assert issubclass(NoSuchName, TciafsError)
