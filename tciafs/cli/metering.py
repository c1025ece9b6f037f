"""`tciafs metrics`: what mounts do as Prometheus metrics, printed or put where a collector reads them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import MOUNT_POINT
from tciafs.cli.daemons import asked_quietly, mounts_meant
from tciafs.cli.output import fail_with
from tciafs.errors import Unusable

if TYPE_CHECKING:
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["metrics"]


@click.command(short_help="Print Prometheus metrics of your mounts.")
@click.argument("mountpoint", type=MOUNT_POINT, required=False)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    metavar="FILE",
    help="Replace FILE by them, in one step, instead of printing them.",
)
def metrics(mountpoint: str | None, output: Path | None) -> int:
    """Print Prometheus metrics of MOUNTPOINT (default: all your mounts, none too).

    \b
      tciafs metrics                                 on standard output
      tciafs metrics --output /var/lib/prometheus/node-exporter/tciafs.prom
    """
    from tciafs.control.client import ask_status
    from tciafs.control.metrics import exposition

    answers = [asked_quietly(mount, ask_status) for mount in _meant(mountpoint)]
    exit_code = 0
    for each in answers:
        if each.error is not None:
            exit_code = fail_with(each.error)
    silent = [str(each.mount.path) for each in answers if each.error is not None]
    text = exposition([each.answer for each in answers if each.answer is not None], silent)
    if output is None:
        click.echo(text, nl=False)
    else:
        _replace(output, text)
    return exit_code


def _meant(mountpoint: str | None) -> "list[Ours]":
    try:
        return mounts_meant(mountpoint)
    except Unusable:
        if mountpoint is not None:
            raise
        return []  # a collector wants to hear that too


def _replace(file: Path, text: bytes) -> None:
    """Write a file that nobody sees half written, and that everybody may read, as collectors do."""
    import tempfile

    try:
        descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "wb") as written:
                written.write(text)
                os.fchmod(written.fileno(), 0o644)
            Path(beside).replace(file)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise click.ClickException(f"{file} could not be written: {error.strerror}") from error
