"""Citing the data under a path, or what was read."""

import datetime as dt
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import PATH
from tciafs.cli.daemons import asked_each, mount_around, mounts_of_user
from tciafs.cli.exporting import series_at
from tciafs.cli.output import say
from tciafs.errors import Misuse

if TYPE_CHECKING:
    from tciafs.citations import SeriesSource

__all__ = ["cite"]


@click.command(short_help="Print the citations of the data at PATH.")
@click.argument("paths", type=PATH, nargs=-1, metavar="[PATH...]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "bibtex", "csl-json"]),
    default="text",
    help="How citations are written.  [default: text]",
)
@click.option(
    "--used",
    is_flag=True,
    help="Cite what was read, at PATH: mounts, or collections in them (default: all your mounts).",
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="With --used: what was read on that day (UTC) or later.",
)
def cite(paths: tuple[str, ...], form: str, used: bool, since: dt.datetime | None) -> int:
    """Print the citations of the data at PATH in a mount (default: the current folder), with their licences.

    Takes listings and no images. Authors and titles are at each DOI; archives do not list them. With --used
    it is what programs have really opened, wherever it lies.

    \b
      tciafs cite /mnt/tcia/LIDC-IDRI
      tciafs cite --format bibtex /mnt/cohort
      tciafs cite --used --since 2026-01-31
    """
    from tciafs.citations import FORMS, data_sets
    from tciafs.control.report import printable

    if since is not None and not used:
        raise click.UsageError("--since goes with --used")
    exit_code = 0
    if used:
        sources, exit_code = _used(paths, (since.date() if since else dt.date.min).isoformat())
    else:
        sources = [each.source() for each in series_at(paths or (".",))]
    if used and not sources:
        click.echo("tciafs: nothing was read there, as far as is known", err=True)
    text = FORMS[form](data_sets(sources))
    say("\n".join(printable(line) for line in text.rstrip("\n").split("\n")))
    return exit_code


def _used(paths: tuple[str, ...], since: str) -> "tuple[list[SeriesSource], int]":
    """Return the source of each series that was read through some mounts, and an exit code."""
    from tciafs.citations import SeriesSource
    from tciafs.control.client import ask_used
    from tciafs.naming import legal_name

    places = [mount_around(path) for path in paths] or [(mount, "/") for mount in mounts_of_user()]
    sources, exit_code = [], 0
    for mount, inside in places:
        collection = _collection_of(inside)
        answers, code = asked_each([mount], partial(ask_used, since=since))
        exit_code = exit_code or code
        for each in (each for answer in answers for each in answer):
            is_third_party = each.third_party.upper() == "YES"
            source = SeriesSource(
                each.collection, each.data_uri, each.licence_name, each.licence_uri, is_third_party
            )
            if collection in (None, legal_name(each.collection)):
                sources += [source] * each.series
    return sources, exit_code


def _collection_of(inside: str) -> str | None:
    """Return the name of the collection that a path in a mount is, None for the mount itself.

    Raises Misuse for what lies deeper: what was read is counted for whole collections.
    """
    parts = PurePosixPath(inside).parts[1:]
    if len(parts) > 1:
        raise Misuse(f"{inside} is no collection, and what was read is known of whole collections alone")
    return parts[0] if parts else None
