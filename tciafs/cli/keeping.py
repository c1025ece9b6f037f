"""`tciafs pin`, `unpin` and `evict`: what the cache of a mount keeps for good, and what goes now."""

from functools import partial

import click

from tciafs.cli.completing import PATH
from tciafs.cli.daemons import asked, mount_around
from tciafs.cli.output import say

__all__ = ["evict", "pin", "unpin"]


@click.command(short_help="Keep what is at PATH in the cache for good.")
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
def pin(paths: tuple[str, ...]) -> None:
    """Keep what is at PATH in the cache for good, once it is there; nothing is downloaded now.

    PATH is a collection, a patient, a study, a series or an image, which means its series.

    \b
      tciafs pin /mnt/tcia/LIDC-IDRI/LIDC-IDRI-0001
    """
    for path in paths:
        _pin(path, pinned=True)


@click.command(short_help="Let what is at PATH make room again.")
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
def unpin(paths: tuple[str, ...]) -> None:
    """Let what is at PATH make room for others again, all below it too.

    \b
      tciafs unpin /mnt/tcia/LIDC-IDRI        and all patients there
    """
    for path in paths:
        _pin(path, pinned=False)


def _pin(path: str, *, pinned: bool) -> None:
    mount, inside = mount_around(path)
    from tciafs.control.client import ask_pin
    from tciafs.control.report import printable

    asked(mount, partial(ask_pin, mount.path, inside, pinned=pinned))
    say(f"{'pinned' if pinned else 'not pinned any more'}: {printable(path)}")


@click.command(short_help="Drop the images at PATH from the cache.")
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
def evict(paths: tuple[str, ...]) -> int:
    """Drop the images at PATH from the cache, except what is pinned or open; names and sizes stay.

    The exit code is 1 if something at PATH had to stay.

    \b
      tciafs evict /mnt/tcia/LIDC-IDRI
    """
    return max([_evict(path) for path in paths])


def _evict(path: str) -> int:
    mount, inside = mount_around(path)
    from tciafs.control.client import ask_evict
    from tciafs.control.report import printable, size_text

    done = asked(mount, partial(ask_evict, mount.path, inside))
    kept = [f"{count:,} {why}" for count, why in ((done.pinned, "pinned"), (done.in_use, "in use")) if count]
    stays = f"; not dropped: {', '.join(kept)}" if kept else ""
    say(f"{printable(path)}: {done.series:,} series dropped, {size_text(done.size_bytes)} freed{stays}")
    return 1 if kept else 0
