"""A store with real workers that fetches, reads and evicts until it is killed: `-m tests.store.busy_process`.

It says a line for each thing that happens, and takes its orders as a line of JSON. What it finds at its
start is compared with what the archive said of it: a wrong byte ends it with a traceback.
"""

import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
import trio
from isal.isal_zlib import crc32

from tciafs.archives.nbia.archive import NbiaConfig
from tciafs.errors import TciafsError
from tciafs.model import Series
from tciafs.store.disk import bytes_on_disk
from tciafs.store.download import Download
from tciafs.store.places import Places
from tciafs.store.shelf import Shelf
from tciafs.store.store import Store, StoreConfig
from tciafs.worker.pool import WorkerPool

PATIENCE_S = 30.0


class Orders(msgspec.Struct):
    """What to do; `checksums` are those of a series' images, by series UID and name."""

    folder: str
    limit_bytes: int
    archive: NbiaConfig
    series: list[Series]
    checksums: dict[str, dict[str, int]]
    seed: int


def say(what: str) -> None:
    os.write(sys.stdout.fileno(), f"{what}\n".encode())  # at once, since threads speak too


def telling(cls: type, name: str) -> None:
    """Have a method say when it begins and when it is done."""
    really: Callable[..., Any] = getattr(cls, name)

    @wraps(really)
    def told(*args: Any, **kwargs: Any) -> Any:
        say(f"{name} begins")
        result = really(*args, **kwargs)
        say(f"{name} is done")
        return result

    setattr(cls, name, told)


def check(store: Store, orders: Orders) -> int:
    """Compare what is here with what it must be, and the ledger with the folder; return how many are here."""
    here = 0
    for series in orders.series:
        expected = orders.checksums[series.series_uid]
        if store.state(series) == "local":
            here += 1
            for name, checksum in expected.items():
                read(store, series, name, checksum)
    packs = [file for file in Path(orders.folder, "series").rglob("*") if file.is_file()]
    assert here == store.usage().series_count == len(packs), (here, store.usage(), packs)
    assert store.usage().used_bytes == sum(bytes_on_disk(file.stat()) for file in packs)
    assert [file for file in Path(orders.folder, "incoming").rglob("*") if file.is_file()] == []
    return here


def read(store: Store, series: Series, name: str, checksum: int) -> None:
    opened = store.open_local(series, name)
    assert opened is not None, f"{name} of {series.series_uid} is not here"
    with closing(opened):
        assert crc32(opened.read(0, opened.image.size_bytes)) == checksum, f"wrong bytes in {name}"


async def be_busy(store: Store, orders: Orders) -> None:
    """Fetch at random for ever, three at a time."""
    choose = random.Random(orders.seed)
    while True:
        downloads: list[Download] = []
        for series in choose.sample(orders.series, 3):
            try:
                if store.state(series) != "local":
                    downloads.append(store.fetch(series))
                elif (
                    opened := store.open_local(series, next(iter(orders.checksums[series.series_uid])))
                ) is not None:
                    opened.close()
            except TciafsError:
                continue
        await watch(downloads)


async def watch(downloads: Sequence[Download]) -> None:
    if not downloads:
        say("nothing to do")
        await trio.lowlevel.checkpoint()
    for download in downloads:
        while not download.settled:
            known = len(download.images)
            try:
                await download.wait_for_more(known, PATIENCE_S)
            except TciafsError:
                break
            say(f"image {known}")
        await download.over.wait()
        say("over" if download.failure is None else f"failed: {type(download.failure).__name__}")


async def main() -> None:
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    telling(Places, "put")
    telling(Shelf, "publish")
    telling(Shelf, "remove_pack")
    config = StoreConfig(Path(orders.folder), orders.limit_bytes, failure_memory_s=0.0)
    async with (
        WorkerPool.running(lambda: orders.archive, retries=0, first_wait_s=0.01) as pool,
        Store.running(config, pool) as store,
    ):
        say(f"ready {json.dumps({'here': check(store, orders)})}")
        await be_busy(store, orders)


if __name__ == "__main__":
    trio.run(main)
