"""What NBIA calls the images of a series (getImage with NewFileNames=Yes), as far as that can be known.

The server sorts by instance number alone, although its release notes say acquisition first, and counts a new
group at each change of the acquisition number on the way. Images without an instance number, and those that
share one, come in an order of the database that nobody else knows. Defined here and only here: that rule.
Pure functions.
"""

from collections.abc import Sequence
from operator import itemgetter

from tciafs.model import ImageKey

__all__ = ["ROUTE", "retriever_names"]

ROUTE = "nbia"
"""What `Member.route` calls it."""


def retriever_names(images: Sequence[ImageKey]) -> list[str] | None:
    """Return the name of each of `images`, all of a series; None where the database decides.

    The second number is padded for the number of distinct instance numbers, here that of the images, the
    first for how often the acquisition number changes, the empty one not counting.
    """
    numbered = [(each.instance_number, place) for place, each in enumerate(images)]
    ordered = sorted(((number, place) for number, place in numbered if number is not None), key=itemgetter(0))
    if len({number for number, _ in ordered}) < len(images):
        return None
    acquisitions = [images[place].acquisition_number for _, place in ordered]
    group_width, image_width = len(str(1 + _changes(acquisitions))), len(str(len(images)))
    names = [""] * len(images)
    for (_, place), (group, number) in zip(ordered, _numbers(acquisitions), strict=True):
        names[place] = f"{group:0{group_width}}-{number:0{image_width}}.dcm"
    return names


def _numbers(acquisitions: Sequence[int | None]) -> list[tuple[int, int]]:
    """Return (group, place in it) of each image, both from 1."""
    previous: int | None = (acquisitions[0] or 0) if acquisitions else 0
    group, number, numbers = 1, 0, []
    for acquisition in acquisitions:
        if (acquisition or 0) != previous:
            # Not 0 for an empty one: the server then counts the next empty one as another change.
            previous, group, number = acquisition, group + 1, 0
        number += 1
        numbers.append((group, number))
    return numbers


def _changes(acquisitions: Sequence[int | None]) -> int:
    """Return how often the acquisition number changes, passing over empty ones."""
    current = (acquisitions[0] or 0) if acquisitions else 0
    changes = 0
    for acquisition in acquisitions:
        if acquisition is not None and acquisition != current:
            current, changes = acquisition, changes + 1
    return changes
