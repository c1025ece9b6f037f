"""Metrics say what the status says, under names that are documented, and no text from outside breaks them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tciafs.control.metrics import exposition
from tciafs.control.values import CacheStatus, CatalogueStatus, SinceStart
from tests.statuses import make_status

STATUS = make_status(
    mounted_at=1e9,
    cache=CacheStatus(50 << 30, 1536, 1 << 40, 1234, 4096),
    downloads_total=5,
    failures_total=6,
    inodes=56_789,
    catalogue=CatalogueStatus(17, 45, ()),
    paused=True,
    since_start=SinceStart(9, 1, 5_000_000, 6, 7, 8),
)
DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "control.md"


def parsed(text: bytes) -> list[Metric]:
    return list(text_string_to_metric_families(text.decode()))


def values(text: bytes) -> dict[str, float]:
    """Return the samples of one mount, those with more labels by these."""
    found = {}
    for family in parsed(text):
        for sample in family.samples:
            more = "".join(f" {value}" for name, value in sample.labels.items() if name == "source")
            found[sample.name + more] = sample.value
    return found


def test_each_metric_is_a_number_of_the_status() -> None:
    assert values(exposition([STATUS])) == {
        "tciafs_up": 1,
        "tciafs_info": 1,
        "tciafs_images_opened_total cache": 9,
        "tciafs_images_opened_total archive": 1,
        "tciafs_start_time_seconds": 1e9,
        "tciafs_paused": 1,
        "tciafs_login_refused": 0,
        "tciafs_cache_limit_bytes": 50 << 30,
        "tciafs_cache_used_bytes": 1536,
        "tciafs_cache_free_bytes": 1 << 40,
        "tciafs_cache_parts_bytes": 4096,
        "tciafs_cache_series": 1234,
        "tciafs_downloads": 5,
        "tciafs_failed_series": 6,
        "tciafs_listings": 45,
        "tciafs_inodes": 56_789,
        "tciafs_received_bytes_total": 5_000_000,
        "tciafs_series_fetched_total": 6,
        "tciafs_downloads_failed_total": 7,
        "tciafs_downloads_refused_total": 8,
        "tciafs_listing_requests_total": 17,
    }


def test_every_metric_is_documented_and_none_else() -> None:
    documented = set(re.findall(r"^\| `(tciafs_\w+)", DOCUMENTED.read_text("utf-8"), re.MULTILINE))
    samples = {sample.name for family in parsed(exposition([STATUS])) for sample in family.samples}
    assert samples == documented


def test_names_are_as_prometheus_wants_them() -> None:
    for family in parsed(exposition([STATUS])):
        assert family.documentation
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert sample.labels["mountpoint"] == "/mnt/tcia"
            assert "bytes" not in sample.name or re.search(r"_bytes(_total)?$", sample.name)


def test_several_mounts_are_told_apart_and_one_that_is_silent_is_down() -> None:
    text = exposition([STATUS, replace(STATUS, mountpoint="/mnt/b")], ["/mnt/dead"])
    (up,) = (family for family in parsed(text) if family.name == "tciafs_up")
    assert {each.labels["mountpoint"]: each.value for each in up.samples} == {
        "/mnt/tcia": 1,
        "/mnt/b": 1,
        "/mnt/dead": 0,
    }


def test_without_a_mount_there_are_no_samples() -> None:
    assert [family.samples for family in parsed(exposition([])) if family.samples] == []


@pytest.mark.filterwarnings("error")
@given(st.text(), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_whatever_a_path_is_called_the_text_is_sound(text: str, odd: str) -> None:
    hostile = f'{text}{odd}"\n\\'
    exposed = exposition([replace(STATUS, mountpoint=hostile, archive=hostile)], [hostile])
    assert all(line.isprintable() for line in exposed.decode().split("\n"))
    assert len(values(exposed)) == len(values(exposition([STATUS])))
