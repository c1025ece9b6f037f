"""How much lies under a path, and how much of it is here: from listings alone, before anything is fetched."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import PATH
from tciafs.cli.exporting import series_at
from tciafs.cli.output import say
from tciafs.hidden import parted

if TYPE_CHECKING:
    from tciafs.export.mounted import MountedSeries

__all__ = ["du"]

DEEPEST = 4
HEADINGS = ("SIZE", "HERE", "IMAGES", "SERIES", "")


@dataclass(slots=True)
class _Sum:
    """What some series come to; `unknown` are those of which the archive lists no size."""

    size_bytes: int = 0
    here_bytes: int = 0
    images: int = 0
    series: int = 0
    unknown: int = 0

    def add(self, series: "MountedSeries") -> None:
        """Add a series."""
        size_bytes = series.size_bytes
        self.series += 1
        self.images += series.image_count or 0
        self.unknown += size_bytes is None
        self.size_bytes += size_bytes or 0
        self.here_bytes += (size_bytes or 0) if series.is_here else 0


@click.command()
@click.argument("paths", type=PATH, nargs=-1, metavar="[PATH...]")
@click.option(
    "-d",
    "--depth",
    type=click.IntRange(0, DEEPEST),
    default=1,
    help="A line for each folder so far below PATH.  [default: 1]",
)
def du(paths: tuple[str, ...], depth: int) -> None:
    """Show how much lies at PATH in a mount, and how much of it is here (default: the current folder).

    Takes listings and no images. A size with a + is more: the archive lists none for some of the series.
    """
    from tciafs.control.report import printable

    lines = [HEADINGS]
    for path in paths or (".",):
        lines += _measured(path, depth)
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS) - 1)]
    for *numbers, name in lines:
        aligned = "  ".join(number.rjust(width) for number, width in zip(numbers, widths, strict=True))
        say(f"{aligned}  {printable(name)}".rstrip())


def _measured(path: str, depth: int) -> list[tuple[str, str, str, str, str]]:
    """Return a line for each folder at a depth below a path, in their order, and one for the path."""
    from tciafs.cli.daemons import mount_around

    _mount, inside = mount_around(path)
    _view, base = parted(PurePosixPath(inside).relative_to("/"))
    total, below = _Sum(), defaultdict[str, _Sum](_Sum)
    for series in series_at((path,)):
        total.add(series)
        for level in range(len(base.parts) + 1, min(len(base.parts) + depth, DEEPEST) + 1):
            below["/".join(series.location.parts[len(base.parts) : level])].add(series)
    shown = path.rstrip("/") or path
    return [*(_line(each, f"{shown}/{name}") for name, each in sorted(below.items())), _line(total, shown)]


def _line(each: _Sum, name: str) -> tuple[str, str, str, str, str]:
    from tciafs.control.report import size_text

    more = "+" if each.unknown else ""
    here = size_text(each.here_bytes)
    return f"{size_text(each.size_bytes)}{more}", here, f"{each.images:,}", f"{each.series:,}", name
