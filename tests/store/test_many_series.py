"""The start of a cache of very many series: names are compared, and no pack is opened."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tciafs.store import recovery
from tciafs.store.disk import BLOCK_BYTES
from tciafs.store.layout import Layout, PackedImage, PackedImages
from tciafs.store.ledger import Ledger
from tciafs.store.places import Places
from tciafs.store.shelf import Shelf

CHECKS = ("crc32", "count", "size", "md5")


def fill(folder: Path, count: int) -> None:
    """Make a ledger of so many series of one image, and an empty file for each pack."""
    places = Places(folder)

    def packs() -> Iterator[tuple[Layout, int, float]]:
        for number in range(count):
            uid = f"1.3.6.1.4.1.14519.5.2.1.7009.9004.{number:039}"
            pack = places.of(uid)
            pack.parent.mkdir(exist_ok=True)
            pack.touch()
            images = PackedImages([PackedImage("1-1.dcm", 0, 500_000, number)])
            yield Layout(uid, f"1:{number}", images, CHECKS, ("Lung", "P1", "1.2", uid)), BLOCK_BYTES, number

    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        ledger.fill(packs())


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_start_opens_no_pack(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: Path) -> Layout:
        raise AssertionError(f"{file} was read")

    fill(tmp_path, count)
    monkeypatch.setattr(recovery, "read_layout", read)
    for _ in range(3):
        began = time.perf_counter()
        with closing(Shelf(tmp_path)) as shelf:
            took_s = time.perf_counter() - began
            assert (shelf.series_count, shelf.used_bytes) == (count, count * BLOCK_BYTES)
        per_series = (tmp_path / "ledger.sqlite").stat().st_size / count
        print(f"{count:,} series: {took_s:.2f} s to start, {per_series:.0f} bytes each in the ledger")
