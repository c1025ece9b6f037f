"""`tciafs verify`: the series on disk read again by the daemon, turn by turn, and what that finds.

Ctrl-C stops between two turns, and nothing goes on in the daemon: it does a turn only when it is asked.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import PATH
from tciafs.cli.daemons import asked, mount_around, mounts_of_user
from tciafs.cli.output import fail_with, say, styled
from tciafs.errors import TciafsError

if TYPE_CHECKING:
    from tciafs.control.values import CachedSeries, CheckTurn
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["verify"]

CLEAR_LINE = "\r\x1b[K"


@click.command(short_help="Read what is on disk again, and compare it.")
@click.argument("path", type=PATH, required=False)
@click.option("--quiet", is_flag=True, help="Name damaged series only.")
def verify(path: str | None, quiet: bool) -> int:
    """Read what is on disk of PATH again and compare it with what was written (default: all your mounts).

    A damaged series is dropped, and fetched again when somebody reads it; nothing is downloaded now.

    \b
      tciafs verify                           all that is cached
      tciafs verify --quiet /mnt/tcia/LIDC-IDRI
    """
    places = [mount_around(path)] if path is not None else [(mount, "/") for mount in mounts_of_user()]
    check, exit_code = _Check(quiet), 0
    try:
        for mount, inside in places:
            try:
                check.run(mount, inside)
            except TciafsError as error:
                if path is not None:
                    raise
                exit_code = fail_with(error)
    except KeyboardInterrupt:
        check.conclude("stopped: ")
        raise
    check.conclude("")
    return exit_code or (1 if check.damaged else 0)


@dataclass(slots=True)
class _Check:
    """What was read so far, of how much; a damaged series counts as checked."""

    quiet: bool
    total_bytes: int = 0
    read_bytes: int = 0
    checked: int = 0
    damaged: int = 0

    def run(self, mount: "Ours", inside: str) -> None:
        """Have all series at a path in a mount read again. Raises what the daemon raises."""
        from tciafs.control.client import ask_cached

        cached = asked(mount, partial(ask_cached, mount.path, inside))
        self.total_bytes += sum(series.image_bytes for series in cached)
        for series in cached:
            self._read(mount, series)

    def _read(self, mount: "Ours", series: "CachedSeries") -> None:
        """Have one series read again, and say what came of it."""
        from tciafs.control.report import printable, size_text

        name = printable(f"{series.collection}/{series.patient} {series.series_uid}")
        checks = ",".join(series.checks)
        said = f"OK, {series.images:,} images, {size_text(series.image_bytes)}, came with {checks}"
        with self._progress():
            for turn in self._turns(mount, series):
                if turn.is_gone:
                    said = "not here any more"
                if turn.damage is not None:
                    said = f"DAMAGED, {printable(turn.damage)}; fetched again when it is next read"
                    self.damaged += 1
        self.checked += 1
        is_damaged = said.startswith("DAMAGED")
        if not self.quiet or is_damaged:
            say(f"{name}: {styled(said, fg='red', bold=True) if is_damaged else said}")

    def _turns(self, mount: "Ours", series: "CachedSeries") -> "Iterator[CheckTurn]":
        from tciafs.control.client import ask_check
        from tciafs.control.values import CheckPlace

        place: CheckPlace | None = CheckPlace()
        while place is not None:
            turn = asked(mount, partial(ask_check, mount.path, series.series_uid, place))
            self.read_bytes += turn.read_bytes
            self._show_progress()
            yield turn
            place = turn.next

    @contextmanager
    def _progress(self) -> Iterator[None]:
        """Have a line of progress on a terminal, and none of it left behind."""
        self._show_progress()
        try:
            yield
        finally:
            if sys.stderr.isatty():
                click.echo(CLEAR_LINE, nl=False, err=True)

    def _show_progress(self) -> None:
        from tciafs.control.report import size_text

        if sys.stderr.isatty():
            read, total = size_text(self.read_bytes), size_text(self.total_bytes)
            click.echo(f"{CLEAR_LINE}{read} of {total}", nl=False, err=True)

    def conclude(self, how: str) -> None:
        """Say what came of all of it."""
        from tciafs.control.report import size_text

        read = size_text(self.read_bytes)
        say(f"{how}{self.checked:,} series checked, {read} read: {self.damaged:,} damaged")
