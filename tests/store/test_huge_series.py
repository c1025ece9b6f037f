"""What a series of very many images costs the daemon: steps are counted, not timed."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from tciafs.store import ledger as ledger_module
from tciafs.store.layout import Layout, decode_layout
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, make_series

COUNT = 2000
NAMES = [f"1-{number:04}.dcm" for number in range(1, COUNT + 1)]
SERIES = make_series("1.2.3", COUNT)


class Decodes:
    """How often a layout was decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(ledger_module, "decode_layout", self._decode)

    def _decode(self, data: bytes) -> Layout:
        self.count += 1
        return decode_layout(data)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    return Decodes(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(tmp_path / "cache", limit_bytes=10_000_000)


@pytest.fixture
async def store(config: StoreConfig, decodes: Decodes) -> AsyncIterator[Store]:
    contents = [(name, name.encode()) for name in NAMES]
    async with Store.running(config, FakeFetcher({SERIES.series_uid: contents})) as store:
        yield store


async def fetch(store: Store) -> None:
    download = store.fetch(SERIES)
    await download.over.wait()
    download.raise_failure()


def use_every_image(store: Store) -> None:
    for name in NAMES:
        assert store.state(SERIES) == "local"
        known, opened = store.peek(SERIES), store.open_local(SERIES, name)
        assert known is not None
        assert opened is not None
        with closing(opened):
            assert opened.read(0, 100) == name.encode()


async def test_a_series_that_came_in_is_never_read_back(store: Store, decodes: Decodes) -> None:
    await fetch(store)
    use_every_image(store)
    assert decodes.count == 0


async def test_its_images_are_kept_once_from_the_first_arrival_to_the_end(store: Store) -> None:
    download = store.fetch(SERIES)
    await download.over.wait()
    known = store.peek(SERIES)
    assert known is not None
    assert known.layout.images is download.images


async def test_a_series_in_the_cache_is_decoded_once_for_all_its_images(
    config: StoreConfig, store: Store, decodes: Decodes
) -> None:
    await fetch(store)
    store._shelf._known.clear()
    use_every_image(store)
    assert decodes.count == 1
