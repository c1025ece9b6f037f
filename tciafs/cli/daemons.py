"""Commands that ask the daemon of a mount, and finding the one that is meant.

Paths in mounts are plain words here: click would look at what they name, and wait for a frozen daemon.
"""

import errno
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import click

from tciafs.cli.completing import MOUNT_POINT, PATH
from tciafs.cli.output import fail_with, say
from tciafs.errors import Misuse, NoDaemon, NoSuchName, TciafsError, Unusable

if TYPE_CHECKING:
    from tciafs.filesystem.mountpoint import Ours

__all__ = [
    "Answered",
    "asked",
    "asked_each",
    "asked_quietly",
    "failure_of",
    "mount_around",
    "mounts_meant",
    "mounts_of_user",
    "pause",
    "refresh",
    "resume",
    "the_mount",
]

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """What the daemon of a mount has answered, or why it did not."""

    mount: "Ours"
    answer: A | None
    error: TciafsError | None


@click.command(short_help="Have all downloads stand still.")
@click.argument("mountpoint", type=MOUNT_POINT)
def pause(mountpoint: str) -> None:
    """Have all downloads of MOUNTPOINT stand still; what is cached stays readable.

    \b
      tciafs pause /mnt/tcia
    """
    _pause(mountpoint, paused=True)


@click.command(short_help="Let the downloads go on.")
@click.argument("mountpoint", type=MOUNT_POINT)
def resume(mountpoint: str) -> None:
    """Let the downloads of MOUNTPOINT go on.

    \b
      tciafs resume /mnt/tcia
    """
    _pause(mountpoint, paused=False)


def _pause(mountpoint: str, *, paused: bool) -> None:
    mount, _inside = mount_around(mountpoint)
    from tciafs.control.client import ask_pause

    asked(mount, partial(ask_pause, mount.path, paused=paused))


@click.command(short_help="Ask the archive again for the listings at PATH.")
@click.argument("path", type=PATH, default=".")
def refresh(path: str) -> None:
    """Ask the archive again for the listings at PATH in a mount (default: the current folder).

    \b
      tciafs refresh /mnt/tcia                what collections are there
      tciafs refresh /mnt/tcia/LIDC-IDRI
    """
    mount, inside = mount_around(path)
    from tciafs.control.client import ask_refresh
    from tciafs.control.report import printable

    asked(mount, partial(ask_refresh, mount.path, inside))
    say(f"asked again: {printable(path)}")


def mounts_of_user() -> "list[Ours]":
    from tciafs.filesystem.mountpoint import all_of_ours

    if mounts := [mount for mount in all_of_ours() if mount.owner_uid == os.geteuid()]:
        return mounts
    raise Unusable("you have no tciafs mounted")


def mount_around(word: str) -> "tuple[Ours, str]":
    """Return the mount that a path lies in, and the path in it. Raises Unusable where there is none."""
    from tciafs.control.report import printable
    from tciafs.filesystem.mountpoint import ours_around

    if not word:
        raise Misuse("the path is an empty word")
    try:
        found = ours_around(Path(word))
    except OSError as error:
        raise Unusable(f"the current folder is not there any more: {error.strerror}") from error
    if found is None:
        there = "no tciafs is mounted at {}" if os.path.lexists(word) else "{} does not exist"
        raise Unusable(there.format(printable(word)))
    mount, _inside = found
    if mount.owner_uid != os.geteuid():
        where = printable(str(mount.path))
        raise Unusable(f"{where} was mounted by the user {mount.owner_uid}, to whom alone its daemon listens")
    return found


def mounts_meant(mountpoint: str | None) -> "list[Ours]":
    """Return the mount around a path, None: all of the user. Raises Unusable where there is none."""
    return [mount_around(mountpoint)[0]] if mountpoint is not None else mounts_of_user()


def the_mount(mountpoint: str | None, wish: str = "is meant") -> "Ours":
    """Return the mount around a path, None: the only one of the user. Raises Misuse, or Unusable."""
    mounts = mounts_meant(mountpoint)
    if len(mounts) > 1:
        raise Misuse(f"you have {len(mounts)} mounts; say with --mount which of them {wish}")
    return mounts[0]


def asked_each(mounts: "Sequence[Ours]", question: Callable[[Path], A]) -> tuple[list[A], int]:
    """Return the answers of those daemons that give one, and an exit code; of the others it is said why."""
    answers, exit_code = [], 0
    for mount in mounts:
        answered = asked_quietly(mount, question)
        if answered.error is not None:
            exit_code = fail_with(answered.error)
        if answered.answer is not None:
            answers.append(answered.answer)
    return answers, exit_code


def asked_quietly(mount: "Ours", question: Callable[[Path], A]) -> Answered[A]:
    """Return a daemon's answer, or why there is none."""
    try:
        return Answered(mount, asked(mount, partial(question, mount.path)), None)
    except TciafsError as error:
        return Answered(mount, None, error)


def asked(mount: "Ours", question: Callable[[], A]) -> A:
    """Return a daemon's answer; where there is no daemon, say whether the mount is dead."""
    from tciafs.filesystem.mountpoint import is_dead

    try:
        return question()
    except NoDaemon:
        if is_dead(mount.path):
            raise _dead(mount) from None
        raise


def failure_of(path: str, mount: "Ours", error: OSError) -> TciafsError:
    """Return what a path in a mount failed with, as commands say it."""
    from tciafs.control.report import printable

    if error.errno == errno.ENOTCONN:
        return _dead(mount)
    if error.errno == errno.ENOENT:
        return NoSuchName(f"{printable(path)} does not exist")
    return TciafsError(f"{printable(path)} could not be listed: {error.strerror}")


def _dead(mount: "Ours") -> NoDaemon:
    quoted = shlex.quote(str(mount.path))
    return NoDaemon(f"the daemon of {quoted} is dead; clear it with: tciafs umount {quoted}")
