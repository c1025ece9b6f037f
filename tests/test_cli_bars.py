"""The bars of `tciafs prefetch`: what they say of series under way, in the units of `tciafs status`."""

import io

import pytest
from rich.console import Console

from tciafs.cli.bars import Bars
from tciafs.control.series_values import ListedSeries, PrefetchedSeries

LUNG = ListedSeries(("Lung", "P1", "1.2", "1.2.12345"), 120, 60 << 20)
HEAD = ListedSeries(("Head", "P[red]2", "1.3", "1.3.67890"), 60, None)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100, color_system=None, legacy_windows=False)


def shown(console: Console, bars: Bars) -> list[str]:
    with console.capture() as captured:
        console.print(bars)
    return captured.get().rstrip("\n").split("\n")


def coming(series: ListedSeries, arrived_bytes: int) -> tuple[ListedSeries, PrefetchedSeries]:
    return series, PrefetchedSeries(series.path[-1], "coming", arrived_bytes)


def test_each_series_under_way_has_a_bar_below_that_of_all(console: Console) -> None:
    bars = Bars(console, 3, 90 << 20)
    bars.coming([coming(LUNG, 15 << 20), coming(HEAD, 1 << 20)], paused=False)
    total, lung, head = shown(console, bars)
    assert (total.startswith("0 of 3 series "), " 16M/90M " in total) == (True, True)
    assert (lung.startswith("Lung/P1 12345 "), " 15M/60M " in lung) == (True, True)
    assert (head.startswith("Head/P[red]2 67890 "), " 1.0M/? " in head) == (True, True)
    bars.over(LUNG, PrefetchedSeries("1.2.12345", "fetched", 60 << 20))
    total, head = shown(console, bars)
    assert (total.startswith("1 of 3 series "), " 60M/90M " in total) == (True, True)


def test_a_pause_is_said_and_has_no_speed(console: Console) -> None:
    bars = Bars(console, 3, 90 << 20)
    for arrived_bytes in (1 << 20, 2 << 20, 3 << 20):
        bars.coming([coming(LUNG, arrived_bytes)], paused=False)
    bars.coming([coming(LUNG, 3 << 20)], paused=True)
    total, lung = shown(console, bars)
    assert total.startswith("0 of 3 series, paused: tciafs resume")
    assert "/s" not in total + lung
    bars.coming([coming(LUNG, 3 << 20)], paused=False)
    assert "paused" not in "".join(shown(console, bars))
