"""What is in memory is read at once, what is not in a thread; and a disk that hangs holds up nobody else."""

import threading

import trio

from tciafs.filesystem.reading import Reader


class Content:
    """A file of which `at_hand` is in memory; else `disk` is waited for, in `thread`."""

    def __init__(self, at_hand: bytes | None) -> None:
        self.at_hand = at_hand
        self.disk = threading.Event()
        self.thread: int | None = None
        self.asked = trio.Event()

    def read_at_hand(self, offset: int, length: int) -> bytes | None:
        self.asked.set()
        return self.at_hand

    def read(self, offset: int, length: int) -> bytes:
        self.thread = threading.get_ident()
        assert self.disk.wait(30)
        return b"from the disk"

    def close(self) -> None:
        pass


async def test_what_is_in_memory_is_read_at_once() -> None:
    content = Content(b"at hand")
    assert await Reader().read(content, 0, 10) == b"at hand"
    assert content.thread is None


async def test_a_disk_that_hangs_holds_up_only_who_reads_from_it() -> None:
    reader, slow, quick = Reader(), Content(None), Content(b"at hand")
    found: list[bytes] = []

    async def read_slowly() -> None:
        found.append(await reader.read(slow, 0, 10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await slow.asked.wait()
        assert await reader.read(quick, 0, 10) == b"at hand"
        assert found == []
        slow.disk.set()
    assert found == [b"from the disk"]
    assert slow.thread != threading.get_ident()
