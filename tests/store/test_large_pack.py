"""One pack of more than 4 GiB: it comes in, is kept and read, in bounded memory. Takes 4.3 GB of the disk."""

import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest
from isal.isal_zlib import crc32

from tciafs.archives.nbia.archive import NbiaConfig
from tciafs.store.pack import read_layout
from tciafs.store.store import Store, StoreConfig
from tciafs.worker.pool import WorkerPool
from tests.fakes import make_series

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
BLOCKS = {"1-1.dcm": 4097, "1-2.dcm": 3}
"""Images, and of how many blocks of a MiB they are: the second one begins behind 4 GiB."""

BASE = Random(4).randbytes(MIB - 8)
MOST_MEMORY_BYTES = 160 * MIB
SERIES = make_series("1.2.3", len(BLOCKS), sum(BLOCKS.values()) * MIB)


def block(name: str, number: int) -> bytes:
    return struct.pack("<II", int(name[2]), number) + BASE


def checksum(name: str) -> int:
    result = 0
    for number in range(BLOCKS[name]):
        result = crc32(block(name, number), result)
    return result


class Zip:
    """A ZIP64 of stored members, made while it is sent."""

    def __init__(self) -> None:
        self._checksums = {name: checksum(name) for name in BLOCKS}
        self.size_bytes = sum(len(piece) for piece in self._frame()) + sum(BLOCKS.values()) * MIB

    def pieces(self) -> Iterator[bytes]:
        for piece in self._frame():
            yield piece
            if piece.startswith(b"PK\x03\x04"):
                name = piece[30:37].decode()
                yield from (block(name, number) for number in range(BLOCKS[name]))

    def _frame(self) -> Iterator[bytes]:
        """Yield all that is not an image."""
        offset, directory = 0, b""
        for name, blocks in BLOCKS.items():
            size, encoded = blocks * MIB, name.encode()
            known = (0x0021, self._checksums[name], 0xFFFFFFFF, 0xFFFFFFFF, len(encoded))
            local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, *known, 20) + encoded
            local += struct.pack("<HHQQ", 1, 16, size, size)
            directory += struct.pack("<IHHHHHHIIIH", 0x02014B50, 45, 45, 0, 0, 0, *known)
            directory += struct.pack("<HHHHII", 28, 0, 0, 0, 0, 0xFFFFFFFF) + encoded
            directory += struct.pack("<HHQQQ", 1, 24, size, size, offset)
            offset += len(local) + size
            yield local
        end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 2, 2, len(directory), offset)
        locator = struct.pack("<IIQI", 0x07064B50, 0, offset + len(directory), 1)
        yield (
            directory
            + end
            + locator
            + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 2, 2, 2**32 - 1, 2**32 - 1, 0)
        )


@contextmanager
def served(zipped: Zip) -> Iterator[str]:
    """Serve a series at the address that this gives."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/zip")
            self.send_header("Content-Length", str(zipped.size_bytes))
            self.end_headers()
            for piece in zipped.pieces():
                self.wfile.write(piece)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/nbia-api/services"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def peak_memory_bytes(pid: int) -> int:
    (line,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


async def test_a_pack_of_more_than_4_gib_comes_in_and_is_read_in_bounded_memory(tmp_path: Path) -> None:
    with served(Zip()) as url:
        config = NbiaConfig(url, "v4")
        async with (
            WorkerPool.running(lambda: config, 0) as pool,
            Store.running(StoreConfig(tmp_path, 5 << 30), pool) as store,
        ):
            download = store.fetch(SERIES)
            await download.over.wait()
            assert download.failure is None
            peak_bytes = peak_memory_bytes(pool._idle[-1]._process.pid)
            print(
                f"the worker had {peak_bytes / MIB:.0f} MiB, for a pack of {store.usage().used_bytes:,} bytes"
            )
            assert peak_bytes < MOST_MEMORY_BYTES
            for name, blocks in BLOCKS.items():
                opened = store.open_local(SERIES, name)
                assert opened is not None
                with closing(opened):
                    for number in (0, blocks // 2, blocks - 1):
                        assert opened.read(number * MIB, MIB) == block(name, number)
                    assert opened.read(blocks * MIB, 1) == b""
    (pack,) = (tmp_path / "series").rglob("*.pack")
    assert [image.offset for image in read_layout(pack).images] == [0, 4097 * MIB]
