"""How much lies under a path, and how much of it is here: from listings alone, before anything is fetched."""

import dataclasses
import json
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


@click.command(short_help="Show how much lies at PATH, and what of it is here.")
@click.argument("paths", type=PATH, nargs=-1, metavar="[PATH...]")
@click.option(
    "-d",
    "--depth",
    type=click.IntRange(0, DEEPEST),
    default=1,
    help="A line for each folder so far below PATH.  [default: 1]",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each folder, sizes in bytes.")
def du(paths: tuple[str, ...], depth: int, as_json: bool) -> None:
    """Show how much lies at PATH in a mount, and how much of it is here (default: the current folder).

    Takes listings and no images. A size with a + is more: the archive lists none for some of the series.

    \b
      tciafs du /mnt/tcia/LIDC-IDRI           a line for each patient
      tciafs du -d 0 /mnt/tcia/*              one for each collection
      tciafs du --json /mnt/tcia/LIDC-IDRI    for a script, sizes in bytes
    """
    from tciafs.control.report import printable

    measured = [each for path in paths or (".",) for each in _measured(path, depth)]
    if as_json:
        for path, total in measured:
            say(json.dumps({"path": path, **dataclasses.asdict(total)}))
        return
    lines = [HEADINGS, *(_line(total, path) for path, total in measured)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS) - 1)]
    for *numbers, name in lines:
        aligned = "  ".join(number.rjust(width) for number, width in zip(numbers, widths, strict=True))
        say(f"{aligned}  {printable(name)}".rstrip())


def _measured(path: str, depth: int) -> "list[tuple[str, _Sum]]":
    """Return each folder at a depth below a path, in their order, and then the path, with what lies there."""
    from tciafs.cli.daemons import mount_around

    _mount, inside = mount_around(path)
    _view, base = parted(PurePosixPath(inside).relative_to("/"))
    total, below = _Sum(), defaultdict[str, _Sum](_Sum)
    for series in series_at((path,)):
        total.add(series)
        for level in range(len(base.parts) + 1, min(len(base.parts) + depth, DEEPEST) + 1):
            below["/".join(series.location.parts[len(base.parts) : level])].add(series)
    shown = path.rstrip("/") or path
    return [*((f"{shown}/{name}", each) for name, each in sorted(below.items())), (shown, total)]


def _line(each: _Sum, name: str) -> tuple[str, str, str, str, str]:
    from tciafs.control.report import size_text

    more = "+" if each.unknown else ""
    here = size_text(each.here_bytes)
    return f"{size_text(each.size_bytes)}{more}", here, f"{each.images:,}", f"{each.series:,}", name
