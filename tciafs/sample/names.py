"""Image file names as the NBIA server gives them (NewFileNames=Yes), its oddities included.

Defined here and only here. The server sorts by instance number alone, although its release notes
say acquisition first; it pads by the number of distinct instance numbers, not by the image count;
and every null acquisition after a number starts a new group. Pure functions.
"""

from collections.abc import Sequence
from functools import cmp_to_key

from tciafs.sample.records import Image

__all__ = ["in_name_order", "new_file_names", "plain_names"]


def in_name_order(images: Sequence[Image]) -> list[Image]:
    """Return the images in the order in which the server numbers them.

    Ascending instance number, ties in the given (database) order, null first. The server's
    comparison calls a null smaller than another null both ways, which turns a series without any
    instance number around; Python's sort asks the same questions as Java's and so does the same.
    """
    return sorted(images, key=cmp_to_key(_compare))


def _compare(one: Image, other: Image) -> int:
    if one.instance is None:
        return -1
    if other.instance is None:
        return 1
    return (one.instance > other.instance) - (one.instance < other.instance)


def new_file_names(images: Sequence[Image]) -> list[tuple[str, Image]]:
    """Return (name, image) pairs in name order, for example ("1-001.dcm", ...)."""
    ordered = in_name_order(images)
    acquisition_width = _digits_of_changes([image.acquisition for image in ordered])
    instance_width = _digits_of_changes([image.instance for image in ordered])
    named = []
    previous: int | None = (ordered[0].acquisition or 0) if ordered else 0
    group, counter = 1, 0
    for image in ordered:
        if (image.acquisition or 0) != previous:
            previous = image.acquisition  # raw: after a null, the next null differs again
            group, counter = group + 1, 0
        counter += 1
        name = f"{group:0{acquisition_width}}-{counter:0{instance_width}}.dcm"
        named.append((name, image))
    return named


def _digits_of_changes(numbers: Sequence[int | None]) -> int:
    """Return the digits of 1 + how often the non-null number changes along the order."""
    current = (numbers[0] or 0) if numbers else 0
    changes = 0
    for number in numbers:
        if number is not None and number != current:
            current = number
            changes += 1
    return len(str(1 + changes))


def plain_names(images: Sequence[Image]) -> list[tuple[str, Image]]:
    """Return the names without NewFileNames: eight digits in database order."""
    return [(f"{place:08}{image.suffix}", image) for place, image in enumerate(images, start=1)]
