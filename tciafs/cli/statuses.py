"""`tciafs status`: what mounts do, as lines, as JSON, as a screen that goes on, or what failed as CSV."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import MOUNT_POINT
from tciafs.cli.daemons import asked_each, mounts_meant
from tciafs.cli.output import say

if TYPE_CHECKING:
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["status"]


@click.command(short_help="Show what your mounts do.")
@click.argument("mountpoint", type=MOUNT_POINT, required=False)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each mount.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing it, each second anew; q ends it.")
@click.option("--web", is_flag=True, help="Serve a page for a browser on this machine; Ctrl-C ends it.")
@click.option(
    "--failed",
    "failed_file",
    type=click.Path(path_type=Path, allow_dash=True, readable=False),
    metavar="FILE",
    help="Write the series that could not be had as CSV to FILE (-: here) instead.",
)
def status(mountpoint: str | None, as_json: bool, watch: bool, web: bool, failed_file: Path | None) -> int:
    """Show what the daemon of MOUNTPOINT does: downloads, cache, failures (default: all your mounts).

    \b
      tciafs status                   a few lines for each mount
      tciafs status --watch           a screen that shows downloads as they come in
      tciafs status --watch --json    a line for each change, for a script
      tciafs status --web             the same and the archive's tree with pictures, in a browser
      tciafs status --failed -        what could not be had, as CSV
    """
    find = partial(mounts_meant, mountpoint)
    if sum((watch, web, failed_file is not None)) > 1 or (web and as_json):
        raise click.UsageError("Only one of --watch, --web and --failed, and --json not with --web")
    if web:
        from tciafs.cli.browsing import browse

        return browse(find)
    if watch:
        from tciafs.cli.watching import watch as watch_mounts

        return watch_mounts(find, as_json=as_json)
    mounts = find()
    if failed_file is not None:
        return _write_failed(mounts, failed_file)
    from tciafs.control.client import ask_status
    from tciafs.control.report import json_line, report

    answers, exit_code = asked_each(mounts, ask_status)
    for answer in answers:
        say(json_line(answer) if as_json else report(answer))
    return exit_code


def _write_failed(mounts: "list[Ours]", file: Path) -> int:
    """Write a table of what failed in some mounts."""
    from tciafs.control.client import ask_failures
    from tciafs.control.failed_table import failed_csv

    answers, exit_code = asked_each(mounts, ask_failures)
    failures = [each for answer in answers for each in answer]
    table = failed_csv(failures)
    if str(file) == "-":
        click.echo(table, nl=False)
        return exit_code
    try:
        file.write_text(table, encoding="utf-8", newline="")
    except OSError as error:
        raise click.ClickException(f"{file} could not be written: {error.strerror}") from error
    say(f"{len(failures):,} failed series in {file}")
    return exit_code
