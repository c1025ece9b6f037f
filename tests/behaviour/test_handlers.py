"""What only the handlers themselves show: requests the kernel would answer for them, and when they let go."""

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pyfuse3
import pytest
import trio

from tciafs.filesystem.identities import ROOT_INODE
from tciafs.filesystem.operations import Operations
from tciafs.filesystem.texts import Texts
from tciafs.filesystem.tree import Tree
from tests.behaviour.core_filesystem import CoreFileSystem, core
from tests.behaviour.filesystems import Circumstances
from tests.sample.running import RunningSample

WRITES = ["create", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir", "setattr", "setxattr"]
WRITES += ["symlink", "unlink", "write"]
READS = {"access", "forget", "getattr", "getxattr", "listxattr", "lookup", "open", "opendir"}
READS |= {"read", "readdir", "release", "releasedir", "statfs"}
NOT_OURS = {"fallocate", "flush", "fsync", "fsyncdir", "init", "ioctl", "poll", "readlink", "stacktrace"}
"""Answered with "not implemented" by pyfuse3, or notices that nobody waits for."""


@pytest.fixture
async def files(archive: RunningSample, tmp_path: Path) -> AsyncIterator[CoreFileSystem]:
    async with core(archive.url, tmp_path, Circumstances()) as files:
        yield files


@pytest.mark.parametrize("request_name", WRITES)
async def test_every_writing_request_is_refused(request_name: str, files: CoreFileSystem) -> None:
    with pytest.raises(pyfuse3.FUSEError) as refused:
        await getattr(files.operations, request_name)(ROOT_INODE, b"name", 0, 0, files.new_caller())
    assert refused.value.errno == errno.EROFS


def test_no_writing_request_is_forgotten() -> None:
    ours = {name for name, value in vars(Operations).items() if callable(value)}
    known = {name for name, value in vars(pyfuse3.Operations).items() if callable(value)}
    left = {name for name in known if not name.startswith("_")} - ours
    assert {*READS, *WRITES} <= ours
    assert left <= NOT_OURS


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_opening_for_writing_is_refused_whatever_the_kernel_lets_through(
    flags: int, files: CoreFileSystem
) -> None:
    caller = files.new_caller()
    inode = await files.inode("Phantom-Head/LICENSE", caller)
    with pytest.raises(pyfuse3.FUSEError) as refused:
        await files.operations.open(inode, flags, caller)
    assert refused.value.errno == errno.EROFS


async def test_the_kernel_remembers_that_a_name_does_not_exist(files: CoreFileSystem) -> None:
    entry = await files.operations.lookup(ROOT_INODE, b"no such collection", files.new_caller())
    assert entry.st_ino == 0
    assert entry.entry_timeout > 0


async def test_a_handler_never_ends_in_anything_but_a_bare_fuse_error(
    files: CoreFileSystem, monkeypatch: pytest.MonkeyPatch, expect_log: Any
) -> None:
    async def fails(*_: object) -> NoReturn:
        raise ExceptionGroup("a nursery's", [pyfuse3.FUSEError(errno.ENOENT), ValueError("a mistake")])

    monkeypatch.setattr(Tree, "child", fails)
    expect_log(r"ERROR tciafs\.filesystem\.operations: lookup /name failed in an unexpected way")
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await files.operations.lookup(ROOT_INODE, b"name", files.new_caller())
    assert failed.value.errno == errno.EIO


async def test_an_unknown_handle_is_an_error_and_not_the_end(files: CoreFileSystem, expect_log: Any) -> None:
    expect_log(r"ERROR tciafs\.filesystem\.operations: read .*failed in an unexpected way")
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await files.operations.read(4711, 0, 1)
    assert failed.value.errno == errno.EIO


@pytest.mark.parametrize("request_name", ["lookup", "getattr", "open"])
async def test_every_wait_ends_when_the_mount_goes_away(
    request_name: str, files: CoreFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = files.new_caller()
    inode = await files.inode("Phantom-Head/LICENSE", caller)
    waits = trio.Event()

    async def waits_for_ever(*_: object) -> NoReturn:
        waits.set()
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(Texts, "text", waits_for_ever)
    words = {"lookup": (await files.inode("Phantom-Head", caller), b"LICENSE"), "open": (inode, os.O_RDONLY)}
    told: list[int] = []

    async def ask() -> None:
        with pytest.raises(pyfuse3.FUSEError) as ended:
            await getattr(files.operations, request_name)(*words.get(request_name, (inode,)), caller)
        told.append(ended.value.errno)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await waits.wait()
            files.operations._interrupts.close()
    assert told == [errno.EINTR]


async def test_a_closed_mount_lets_go_of_what_is_open(files: CoreFileSystem) -> None:
    async with files.opened("Phantom-Mammography/" + await _only_image(files)) as file:
        assert await file.pread(128, 4) == b"DICM"
        files.operations.close()
        assert files.operations._handles._opened == {}


async def _only_image(files: CoreFileSystem) -> str:
    path = "Phantom-Mammography"
    for _level in range(4):
        (name,) = [name for name in await files.listdir(path) if name != "LICENSE"]
        path = f"{path}/{name}"
    return path.partition("/")[2]
