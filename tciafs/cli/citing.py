"""Citing the data under a path."""

import click

from tciafs.cli.completing import PATH
from tciafs.cli.exporting import series_at
from tciafs.cli.output import say

__all__ = ["cite"]


@click.command()
@click.argument("paths", type=PATH, nargs=-1, metavar="[PATH...]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "bibtex", "csl-json"]),
    default="text",
    help="How citations are written.  [default: text]",
)
def cite(paths: tuple[str, ...], form: str) -> None:
    """Print the citations of the data at PATH in a mount (default: the current folder), with their licences.

    Takes listings and no images. Authors and titles are at each DOI; archives do not list them.

    \b
      tciafs cite /mnt/tcia/LIDC-IDRI
      tciafs cite --format bibtex /mnt/cohort
    """
    from tciafs.citations import FORMS, data_sets
    from tciafs.control.report import printable

    text = FORMS[form](data_sets(each.source() for each in series_at(paths or (".",))))
    say("\n".join(printable(line) for line in text.rstrip("\n").split("\n")))
