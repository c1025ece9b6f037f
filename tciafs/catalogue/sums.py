"""What series come to: how many, how many images and bytes, under which licences.

Of numbers that the archive does not list nothing is made up: a sum without one of them is not known. Values
and pure functions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tciafs.model import Series

__all__ = ["Sum"]


@dataclass(slots=True)
class Sum:
    """What some series come to.

    `uncounted` are those of which the archive does not say how many images they have, `unsized` those of
    which it lists no size; `listed_images` and `listed_bytes` are without them.
    """

    patients: int = 0
    series: int = 0
    listed_images: int = 0
    listed_bytes: int = 0
    uncounted: int = 0
    unsized: int = 0
    restricted: int = 0
    licences: set[str] = field(default_factory=set)

    @property
    def images(self) -> int | None:
        """How many images they have, None if that is not known."""
        return None if self.uncounted else self.listed_images

    @property
    def size_bytes(self) -> int | None:
        """How long they are, None if that is not known."""
        return None if self.unsized else self.listed_bytes

    @classmethod
    def of_patient(cls, series: Iterable[Series]) -> "Sum":
        """Return what series of one patient come to."""
        total = cls()
        total.add_patient(series)
        return total

    def add_patient(self, series: Iterable[Series]) -> None:
        """Add the series of a patient, who counts where there are any."""
        before = self.series
        for each in series:
            self.series += 1
            self.listed_images += each.image_count or 0
            self.listed_bytes += each.size_bytes or 0
            self.uncounted += each.image_count is None
            self.unsized += each.size_bytes is None
            self.restricted += each.forbids_commercial_use
            if each.licence_name:
                self.licences.add(each.licence_name)
        self.patients += self.series > before
