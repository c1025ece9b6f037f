"""What a default mount means by its archive, and what it says while that is less than it could be."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio

from tciafs.archives.either.config import EitherConfig
from tciafs.archives.either.joining import JoiningArchive
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.errors import Misuse, Unusable
from tciafs.filesystem.configs import Meant, archive_meant
from tciafs.filesystem.index_table import IndexTable
from tciafs.settings import Settings
from tests.archives.test_either import FakeNbia

TCIA = NbiaConfig().url


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Install a package as the index is one, with these files, of which none can be read."""
    package = folder / "packages" / "idc_index_data"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in names:
        (package / name).write_bytes(b"no parquet")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "idc_index_data", raising=False)


def meant(folder: Path, url: str = TCIA, index: Path | None = None) -> Meant:
    return archive_meant(Settings(cache_dir=folder / "cache", idc_index=index), url, None)


FILES = ("idc_index.parquet", "collections_index.parquet", "version_metadata_index.parquet")


def test_without_the_index_it_is_nbia_and_how_to_get_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    found = meant(tmp_path)
    assert (found.config, found.table) == (NbiaConfig(), None)
    assert found.remark == (
        "NBIA alone, since the index of the Imaging Data Commons is not installed; "
        "to add it: pip install idc-index-data duckdb"
    )
    assert meant(tmp_path, "http://127.0.0.1:9").remark == ""


def test_with_the_index_it_is_both_and_nothing_is_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, *FILES)
    found = meant(tmp_path)
    assert isinstance(found.config, EitherConfig)
    assert found.table is not None
    assert str(found.table.path) == found.config.idc.table
    assert found.remark == ""
    assert not (tmp_path / "cache").exists()
    assert meant(tmp_path, "http://127.0.0.1:9").config == NbiaConfig("http://127.0.0.1:9")


def test_an_index_that_lacks_its_files_is_an_error_only_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    found = meant(tmp_path)
    assert (found.config, found.table) == (NbiaConfig(), None)
    assert found.remark.startswith("NBIA alone, since ")
    assert "holds no index" in found.remark
    with pytest.raises(Unusable, match="holds no index"):
        meant(tmp_path, index=tmp_path)


def test_an_earlier_release_takes_the_idc_alone(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="--idc-version takes --archive idc"):
        archive_meant(Settings(idc_version=24), TCIA, None)


def test_what_is_said_of_the_idc_means_nothing_to_the_sample(tmp_path: Path) -> None:
    of_idc = Settings(
        archive="sample", idc_url="https://s3.test", idc_index=tmp_path, idc_all=True, idc_version=24
    )
    sample = "http://127.0.0.1:9"
    assert archive_meant(of_idc, sample, None) == archive_meant(Settings(archive="sample"), sample, None)


async def test_a_table_that_cannot_be_made_is_given_up_and_why_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("NBIA alone, since the table .* could not be made")
    install(tmp_path, monkeypatch, *FILES)
    found = meant(tmp_path)
    assert isinstance(found.config, EitherConfig)
    joining = JoiningArchive(found.config, cast(NbiaArchive, FakeNbia()))
    table = IndexTable(found)
    table.belongs_to(joining)
    assert table.remark.startswith("NBIA alone so far: a table of the index")
    assert table.remark.endswith("once for each release")
    await table.run()
    assert not table.is_awaited
    assert "could not be made" in table.remark
    assert joining.config == NbiaConfig()
    assert [each.name for each in (tmp_path / "cache" / "idc").glob("index*")] == ["index.lock"]
    await joining.aclose()


async def test_where_there_is_nothing_to_make_nothing_is_done(tmp_path: Path) -> None:
    table = IndexTable(Meant(NbiaConfig(), remark="as it is"))
    with trio.fail_after(1):
        await table.make_if_needed(lambda _: None)
        await table.run()
    assert (table.is_awaited, table.remark) == (False, "as it is")
