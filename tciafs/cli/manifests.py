"""`tciafs manifest`: manifests given to a mount, which shows each of them as a folder."""

from functools import partial
from pathlib import Path

import click

from tciafs.cli.completing import MOUNT_POINT
from tciafs.cli.daemons import asked, the_mount
from tciafs.cli.output import say
from tciafs.hidden import BY_MANIFEST, VIEWS_FOLDER

__all__ = ["manifest"]


@click.group(short_help="Show manifests as folders of a mount.")
def manifest() -> None:
    """Show manifests as folders of a mount: .tciafs/by-manifest/NAME."""


_mount_option = click.option(
    "--mount",
    "mountpoint",
    type=MOUNT_POINT,
    metavar="MOUNTPOINT",
    help="The mount that is meant, where you have several.",
)


@manifest.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--name", metavar="NAME", help="What the folder is called.  [default: as FILE, without its ending]"
)
@_mount_option
def add(file: Path, name: str | None, mountpoint: str | None) -> None:
    """Give the manifest FILE to a mount, which keeps it; one of the same name is replaced.

    \b
      tciafs manifest add cohort.tcia
      tciafs manifest add cohort.csv --name study-7
    """
    from tciafs.selection.manifests import read_manifest

    mount = the_mount(mountpoint)
    read = read_manifest(file)
    from tciafs.control.manifest_client import ask_add_manifest
    from tciafs.control.report import printable

    name = name or read.name
    added = asked(mount, partial(ask_add_manifest, mount.path, name, read.uids))
    place = mount.path / VIEWS_FOLDER / BY_MANIFEST
    say(f"{printable(f'{place}/{name}')}: {added.series:,} of {len(read.uids):,} series")
    for each in added.remarks:
        say(printable(each))
    if read.odd_lines:
        say(f"{read.odd_lines:,} lines of {printable(str(file))} name no series")


@manifest.command("list")
@_mount_option
def list_(mountpoint: str | None) -> None:
    """List the manifests of a mount, and how many series each of them names.

    \b
      tciafs manifest list
    """
    mount = the_mount(mountpoint)
    from tciafs.control.manifest_client import ask_manifests
    from tciafs.control.report import printable

    for each in asked(mount, partial(ask_manifests, mount.path)):
        say(f"{each.series:>9,}  {printable(each.name)}")


@manifest.command()
@click.argument("name")
@_mount_option
def remove(name: str, mountpoint: str | None) -> None:
    """Drop the manifest NAME and its folder; what was fetched stays in the cache.

    \b
      tciafs manifest remove cohort
    """
    mount = the_mount(mountpoint)
    from tciafs.control.manifest_client import ask_remove_manifest
    from tciafs.control.report import printable

    asked(mount, partial(ask_remove_manifest, mount.path, name))
    say(f"removed: {printable(name)}")
