"""What a store needs to know, from whoever builds it."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["StoreConfig"]


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What a store needs to know.

    `limit_bytes` bounds what all packs together take on disk. `parallel` series come in at the same time,
    others wait. `patience_s` bounds every wait without a sign of life. A failure is shared for
    `failure_memory_s` before the archive is asked again, one that is lasting for longer; see `failures`.
    `offline` fetches nothing.
    """

    folder: Path
    limit_bytes: int
    parallel: int = 3
    patience_s: float = 90.0
    failure_memory_s: float = 20.0
    offline: bool = False
