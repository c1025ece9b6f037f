"""What a service needs beside the mount: root's part of it, before the daemon starts."""

import os
from pathlib import Path

import click

from tciafs.cli.words import settings_of
from tciafs.errors import Misuse, Unusable

__all__ = ["attach"]


@click.command(hidden=True)
@click.argument("mountpoint", type=Path)  # not click.Path, which would look at what is mounted there
@click.option("--for", "user", metavar="USER", help="Who will serve it; not given: it is served, so tune it.")
def attach(mountpoint: Path, user: str | None) -> None:
    """Mount at MOUNTPOINT and have systemd hand that to the service which starts next; for its unit only.

    The settings are those of the environment and of the configuration file.
    """
    if os.geteuid() != 0:
        raise Misuse("only root can mount for somebody else")
    from tciafs import systemd
    from tciafs.filesystem import attaching
    from tciafs.filesystem.configs import address_of, fuse_options
    from tciafs.filesystem.mountpoint import unmount

    if user is None:
        attaching.tune_served(mountpoint)
        return
    settings = settings_of((), None, {})
    descriptor = attaching.attach(mountpoint, fuse_options(settings, address_of(settings)), user)
    if not systemd.keep_descriptor(descriptor):
        unmount(mountpoint, lazily=True)
        raise Unusable("systemd does not take what is mounted: the unit needs NotifyAccess=exec")
