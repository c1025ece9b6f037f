"""Mounting, the demonstration, unmounting."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tciafs.cli.agreeing import ensure_agreed
from tciafs.cli.completing import FOLDER, MOUNT_POINT
from tciafs.cli.output import say
from tciafs.cli.words import demo_options, mountpoint_in, setting_options, settings_of
from tciafs.errors import Unusable
from tciafs.settings import Settings

if TYPE_CHECKING:
    from tciafs.control.place import Daemon

__all__ = ["demo", "mount", "umount"]

END_TIMEOUT_S = 5.0
"""How long a daemon whose mount is gone is waited for; it usually takes a tenth of a second."""


@click.command(short_help="Mount the archive at MOUNTPOINT.")
@click.argument(
    "words",
    type=FOLDER,
    nargs=-1,
    required=True,
    metavar="MOUNTPOINT",
)
@setting_options
def mount(
    words: tuple[str, ...],
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> None:
    """Mount the archive at MOUNTPOINT, an empty folder. Returns once it answers.

    \b
      tciafs /mnt/tcia                        the word mount may be left out
      tciafs --collection LIDC-IDRI --modality CT /mnt/ct
      tciafs --manifest cohort.tcia /mnt/cohort
      tciafs --offline /mnt/tcia              only what is cached
      tciafs -o cache_size=200G,allow_other /mnt/tcia
      tciafs --foreground --log-level debug /mnt/tcia
    """
    mountpoint = mountpoint_in(words, mount_options)
    _mount(mountpoint, settings_of(mount_options, config, options), foreground)


@click.command(short_help="Mount the bundled sample archive.")
@click.argument("mountpoint", type=FOLDER, required=False)
@demo_options
def demo(
    mountpoint: str | None,
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> None:
    """Mount the bundled sample archive at MOUNTPOINT, which is made if need be.

    Default: a new folder below the one for temporary files. The folder stays after tciafs umount.

    \b
      tciafs demo                             in a new folder, which it names
      tciafs demo ~/demo
    """
    import tempfile

    settings = settings_of(mount_options, config, options | {"archive": "sample"})
    folder = Path(tempfile.mkdtemp(prefix="tciafs-demo-") if mountpoint is None else mountpoint)
    is_served = False
    try:
        _make_folder(folder)
        _mount(folder, settings, foreground)
        is_served = not foreground
    finally:
        if mountpoint is None and not is_served:
            with suppress(OSError):
                folder.rmdir()
    if is_served:
        say(f"Look around in {folder}, then: tciafs umount {shlex.quote(str(folder))}")


@click.command(short_help="Unmount MOUNTPOINT, also where its daemon died.")
@click.argument("mountpoint", type=MOUNT_POINT)
def umount(mountpoint: str) -> None:
    """Unmount MOUNTPOINT; also clears a mount whose daemon died.

    Returns once the daemon has ended too, so that its cache folder is free; says so if that takes long.

    \b
      tciafs umount /mnt/tcia
    """
    from tciafs.control.place import clear, daemon_at
    from tciafs.filesystem.mountpoint import mounted_at, place_of, remains, unmount

    path = Path(mountpoint)
    mounted = mounted_at(path)
    # Now or never: a daemon that ends takes away the socket that it is known by.
    with daemon_at(place_of(path)) as daemon:
        place = unmount(path)
        is_bound_elsewhere = mounted is not None and remains(mounted)
        if daemon is not None and not is_bound_elsewhere:
            _see_ended(daemon, place)
    clear(place)


def _see_ended(daemon: "Daemon", place: Path) -> None:
    if not daemon.has_ended(END_TIMEOUT_S):
        said = f"its daemon (process {daemon.pid}) has not ended within {END_TIMEOUT_S:g} s"
        click.echo(f"tciafs: {place} is unmounted, but {said}; it still has its cache folder", err=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        pass  # what it is, and whether it can be mounted on, is looked at later
    except OSError as error:
        raise Unusable(f"{folder} could not be made: {error.strerror}") from error


def _mount(mountpoint: Path, settings: Settings, foreground: bool) -> None:
    from tciafs import launching
    from tciafs.filesystem.mountpoint import prepare

    try:
        handed = _mount_of_service() if foreground else None
        if handed is None:
            mountpoint = prepare(mountpoint)
        ensure_agreed(settings)
        if foreground:
            launching.run_in_foreground(settings, mountpoint, handed)
        else:
            say(launching.start(settings, mountpoint))
    except Exception:
        if settings.log_level == "debug":
            import traceback

            traceback.print_exc()
        raise


def _mount_of_service() -> int | None:
    from tciafs import systemd

    return systemd.take_mount()
