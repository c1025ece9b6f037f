"""`tciafs log-level`: how much a daemon logs from now on."""

from functools import partial
from typing import TYPE_CHECKING

import click

from tciafs.cli.completing import MOUNT_POINT
from tciafs.cli.daemons import asked_each, mounts_meant
from tciafs.settings import LOG_LEVELS

if TYPE_CHECKING:
    from tciafs.control.values import LevelName

__all__ = ["log_level"]


@click.command(short_help="Have a running mount log more, or less.")
@click.argument("level", type=click.Choice(LOG_LEVELS))
@click.argument("mountpoint", type=MOUNT_POINT, required=False)
def log_level(level: "LevelName", mountpoint: str | None) -> int:
    """Have the daemon of MOUNTPOINT log so much from now on, until it ends (default: all your mounts).

    \b
      tciafs log-level debug /mnt/tcia
      tciafs log-level warning
    """
    mounts = mounts_meant(mountpoint)
    from tciafs.control.client import ask_log_level

    _answers, exit_code = asked_each(mounts, partial(ask_log_level, level=level))
    return exit_code
