"""What series come to: how many, how many images and bytes, under which licences.

Of sizes that the archive does not list nothing is made up: they are counted. Values and pure functions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tciafs.model import Series

__all__ = ["Sum"]


@dataclass(slots=True)
class Sum:
    """What some series come to; `unsized` are those of which the archive lists no size."""

    patients: int = 0
    series: int = 0
    images: int = 0
    size_bytes: int = 0
    unsized: int = 0
    restricted: int = 0
    licences: set[str] = field(default_factory=set)

    def add_patient(self, series: Iterable[Series]) -> None:
        """Add the series of a patient, who counts where there are any."""
        before = self.series
        for each in series:
            self.series += 1
            self.images += each.image_count or 0
            self.size_bytes += each.size_bytes or 0
            self.unsized += each.size_bytes is None
            self.restricted += each.forbids_commercial_use
            if each.licence_name:
                self.licences.add(each.licence_name)
        self.patients += self.series > before
