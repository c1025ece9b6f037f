"""A status of a mount, as a daemon answers, of which a test changes what it is about."""

from typing import Any

from msgspec.structs import replace

from tciafs.control.values import CacheStatus, CatalogueStatus, Status

__all__ = ["make_status"]

PLAIN = Status(
    version="0.1.0",
    mountpoint="/mnt/tcia",
    archive="https://example.org/services",
    pid=17,
    mounted_at=0.0,
    patience_s=125.0,
    cache=CacheStatus(1, 2, 3, 4),
    downloads=(),
    downloads_total=0,
    failures=(),
    failures_total=0,
    inodes=1,
    catalogue=CatalogueStatus(0, 0, ()),
)


def make_status(**fields: Any) -> Status:
    """Return a status with these fields, and others that say nothing much."""
    return replace(PLAIN, **fields)
