"""Exporting what a mount shows into plain folders or archives."""

import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import PATH
from tciafs.cli.output import say
from tciafs.errors import TciafsError, Unusable

if TYPE_CHECKING:
    from tciafs.export.folders import Outcome
    from tciafs.export.mounted import MountedSeries

__all__ = ["export", "series_at"]


@click.command(short_help="Copy what lies at PATH, as the retriever would.")
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the copy goes.",
)
@click.option(
    "--archive",
    "form",
    type=click.Choice(["tar", "tar.xz", "tar.zst"]),
    help="Write archives instead of folders: clusters count files.",
)
@click.option(
    "--per",
    type=click.Choice(["collection", "patient"]),
    default="collection",
    help="What one archive has.  [default: collection]",
)
def export(paths: tuple[str, ...], to: Path, form: str | None, per: str) -> int:
    """Copy what lies at PATH in a mount, as the retriever would have left it.

    Folders and names are those of the mount, with metadata.csv and each collection's LICENSE. What is there
    already is not fetched again, so an export that broke off is begun again by the same command.

    \b
      tciafs export /mnt/tcia/LIDC-IDRI/LIDC-IDRI-0001 --to ~/data
      tciafs export /mnt/cohort --to ~/data --archive tar.xz --per patient
    """
    from tciafs.export.folders import copy_into_folders
    from tciafs.export.tars import write_tars

    series = series_at(paths)
    done = 0

    def progress(each: "MountedSeries") -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            click.echo(f"\r{done:,} of {len(series):,} series", nl=False, err=True)

    try:
        if form is None:
            outcome = copy_into_folders(series, to, progress)
        else:
            outcome = write_tars(series, to, form, per, progress)
    except OSError as error:
        raise TciafsError(f"{to} could not be written: {error.strerror or error}") from error
    finally:
        if sys.stderr.isatty():
            click.echo(err=True)
    return _report(outcome, to)


def series_at(paths: tuple[str, ...]) -> "list[MountedSeries]":
    """Return the series at some paths in mounts, each once. Raises Unusable, or what a mount refuses."""
    from tciafs.cli.daemons import failure_of, mount_around
    from tciafs.export.mounted import series_below

    found: dict[PurePosixPath, MountedSeries] = {}
    for path in paths:
        mount, inside = mount_around(path)
        try:
            found.update({each.location: each for each in series_below(mount.path, inside)})
        except OSError as error:
            raise failure_of(path, mount, error) from error
    if not found:
        raise Unusable("there is no series at these paths")
    return [found[location] for location in sorted(found)]


def _report(outcome: "Outcome", to: Path) -> int:
    from tciafs.control.report import printable

    there = f" ({outcome.skipped:,} were there already)" if outcome.skipped else ""
    say(f"{to}: {outcome.done:,} series{there}")
    for location, why in outcome.failures:
        click.echo(f"tciafs: {printable(location)}: {printable(why)}", err=True)
    return 1 if outcome.failures else 0
