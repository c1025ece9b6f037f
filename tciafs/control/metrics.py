"""What mounts do as Prometheus metrics, in its text format: a status is all they are made of.

Defined here and only here: the names, labels and help of the metrics. Each has the label `mountpoint`, since
one machine may have several. Texts from outside are made fit for a terminal. Pure functions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from tciafs.control.report import printable
from tciafs.control.values import Status

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
LABELS = ("mountpoint",)


class _Row(NamedTuple):
    """A metric that is one number of a status."""

    name: str
    help: str
    value: Callable[[Status], float]


GAUGES = (
    _Row("start_time_seconds", "When it was mounted, in Unix time.", lambda each: each.mounted_at),
    _Row("paused", "Whether all downloads stand still.", lambda each: each.paused),
    _Row(
        "login_refused", "Whether the archive refuses the login.", lambda each: each.login_refused is not None
    ),
    _Row("cache_limit_bytes", "What the cache may take on disk.", lambda each: each.cache.limit_bytes),
    _Row("cache_used_bytes", "What the cache takes on disk.", lambda each: each.cache.used_bytes),
    _Row("cache_free_bytes", "What can still be stored.", lambda each: each.cache.free_bytes),
    _Row("cache_parts_bytes", "What parts of other series take.", lambda each: each.cache.parts_bytes),
    _Row("cache_series", "Series in the cache.", lambda each: each.cache.series),
    _Row("downloads", "Series coming in or waiting for their turn.", lambda each: each.downloads_total),
    _Row(
        "failed_series", "Series that could not be had, and are remembered.", lambda each: each.failures_total
    ),
    _Row("listings", "Listings kept on disk.", lambda each: each.catalogue.remembered),
    _Row("inodes", "Names that the kernel knows.", lambda each: each.inodes),
)
COUNTERS = (
    _Row(
        "received_bytes",
        "Bytes of images that came in, inflated.",
        lambda each: each.since_start.received_bytes,
    ),
    _Row("series_fetched", "Series that came whole.", lambda each: each.since_start.series_fetched),
    _Row("downloads_failed", "Downloads that failed.", lambda each: each.since_start.series_failed),
    _Row("downloads_refused", "Downloads not allowed to programs.", lambda each: each.since_start.refused),
    _Row("listing_requests", "Requests to the archive for listings.", lambda each: each.catalogue.requests),
)


def exposition(statuses: Sequence[Status], silent: Sequence[str] = ()) -> bytes:
    """Return the metrics of some mounts as text; of those that are `silent` only that they are."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Mounts(statuses, silent))
    return generate_latest(registry)


class _Mounts(Collector):
    """Some mounts, as prometheus_client wants to be handed what it is to write."""

    def __init__(self, statuses: Sequence[Status], silent: Sequence[str]) -> None:
        self._statuses = statuses
        self._silent = silent

    def describe(self) -> Iterator[Metric]:
        """Return nothing: who is asked once need not be looked at before."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield self._up()
        yield self._info()
        yield self._opened()
        for kind, rows in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for row in rows:
                family = kind(f"tciafs_{row.name}", row.help, labels=LABELS)
                for each in self._statuses:
                    family.add_metric([_where(each)], row.value(each))
                yield family

    def _up(self) -> Metric:
        up = GaugeMetricFamily("tciafs_up", "Whether the daemon of the mount answers.", labels=LABELS)
        for each in self._statuses:
            up.add_metric([_where(each)], 1)
        for mountpoint in self._silent:
            up.add_metric([printable(mountpoint)], 0)
        return up

    def _info(self) -> Metric:
        info = InfoMetricFamily("tciafs", "What is mounted, by which version.", labels=LABELS)
        for each in self._statuses:
            about = {"archive": printable(each.archive), "version": printable(each.version)}
            info.add_metric([_where(each)], about)
        return info

    def _opened(self) -> Metric:
        opened = CounterMetricFamily(
            "tciafs_images_opened",
            "Images that programs opened: from the cache, or after a wait, perhaps in vain.",
            labels=(*LABELS, "source"),
        )
        for each in self._statuses:
            since = each.since_start
            opened.add_metric([_where(each), "cache"], since.opened_cached)
            opened.add_metric([_where(each), "archive"], since.opened_waiting)
        return opened


def _where(status: Status) -> str:
    return printable(status.mountpoint)
