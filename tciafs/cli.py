"""The commands: words into Settings, errors into one clear line and an exit code.

`tciafs NAME` where NAME is a command is that command; anything else is a mount point. Imports what is
heavy only where it is used, so that `--help` is instant.
"""

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tciafs import __version__
from tciafs.errors import Misuse, NoDaemon, TciafsError, Unusable
from tciafs.settings import Settings, declarations, load_settings

if TYPE_CHECKING:
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["main"]

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])

NOT_YET = frozenset(
    ["config", "doctor", "du", "evict", "export", "login", "logout", "manifest", "pause", "pin"]
).union(["prefetch", "resume", "unpin", "verify"])
"""Commands of later versions: not mount points, so that they will not change their meaning."""


class MountOrCommand(click.Group):
    """A group of commands in which an unknown first word is a mount point."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in NOT_YET:
            raise Misuse(
                f"this version has no command {args[0]}; to mount on a folder of that name, write ./{args[0]}"
            )
        if self.get_command(ctx, args[0]) is None:
            return super().resolve_command(ctx, ["mount", *args])
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = args or ["--help"]
        # Options before the mount point (tciafs --offline /mnt/tcia) are those of mounting.
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h", "--version"):
            args = ["mount", *args]
        return super().parse_args(ctx, args)


def setting_options(command: F) -> F:
    """Give a command the options that every mount understands."""
    for each in reversed(list(declarations())):
        text = each.help + (f"  [default: {each.default_text}]" if each.default_text else "")
        # An option that is given any flag_value, None too, would no longer need its value.
        kind = {"is_flag": True, "flag_value": "true"} if each.is_flag else {"metavar": each.metavar}
        command = click.option(each.option, each.name, help=text, default=None, **kind)(command)
    command = click.option(
        "-o",
        "mount_options",
        multiple=True,
        metavar="NAME=VALUE,...",
        help="Settings as in /etc/fstab.",
    )(command)
    command = click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration file (TOML).",
    )(command)
    return click.option("-f", "--foreground", is_flag=True, help="Stay; do not become a daemon.")(command)


def _settings(
    mount_options: tuple[str, ...], config: Path | None, options: dict[str, str | None]
) -> Settings:
    given = {name: text for name, text in options.items() if text is not None}
    return load_settings(given, ",".join(mount_options), file=config)


@click.group(
    cls=MountOrCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 the work failed, 2 wrong use, 3 the mount point or FUSE is not usable, "
    "4 the archive refused. Documentation: docs/ in the sources.",
)
@click.version_option(__version__, prog_name="tciafs")
def commands() -> None:
    """The Cancer Imaging Archive as folders; only what is read is downloaded.

    \b
      tciafs /mnt/tcia              mount; ls, cp and open what you like
      tciafs umount /mnt/tcia       unmount
      tciafs status                 what your mounts do: downloads, cache, failures
      tciafs demo                   try it on the bundled sample: no account, no network
      tciafs mount --help           all options, which may also stand before the mount point
    """


def _mountpoint(words: tuple[str, ...], mount_options: tuple[str, ...]) -> Path:
    """Return the mount point; mount(8) puts the first field of a line in /etc/fstab before it.

    mount(8) always adds -o. Without, a second word is a mistake: of who writes unmount, for example.
    """
    places = 2 if mount_options else 1
    if len(words) > places:
        raise click.UsageError(f"Got unexpected extra argument ({words[places]})")
    if not words[-1]:
        raise Misuse("the mount point is an empty word")
    return Path(words[-1])


@commands.command()
@click.argument(
    "words",
    type=click.Path(readable=False),
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
    """Mount the archive at MOUNTPOINT, an empty folder. Returns once it answers."""
    mountpoint = _mountpoint(words, mount_options)
    _mount(mountpoint, _settings(mount_options, config, options), foreground)


@commands.command()
@click.argument("mountpoint", type=click.Path(path_type=Path, readable=False), required=False)
@setting_options
def demo(
    mountpoint: Path | None,
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> None:
    """Mount the bundled sample archive at MOUNTPOINT (default: a new folder)."""
    settings = _settings(mount_options, config, options | {"archive": "sample"})
    folder = mountpoint or Path(tempfile.mkdtemp(prefix="tciafs-demo-"))
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
        _say(f"Look around in {folder}, then: tciafs umount {shlex.quote(str(folder))}")


@commands.command()
@click.argument("mountpoint", type=click.Path(path_type=Path, readable=False))
def umount(mountpoint: Path) -> None:
    """Unmount MOUNTPOINT; also clears a mount whose daemon died."""
    from tciafs.filesystem.mountpoint import unmount

    unmount(mountpoint)


# Paths in mounts are plain words below: click would look at what they name, and wait for a frozen daemon.


@commands.command()
@click.argument("mountpoint", type=click.UNPROCESSED, required=False)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each mount.")
def status(mountpoint: str | None, as_json: bool) -> int:
    """Show what the daemon of MOUNTPOINT does: downloads, cache, failures (default: all your mounts)."""
    mounts = [_mount_around(mountpoint)[0]] if mountpoint is not None else _mounts_of_user()
    from tciafs.control.client import ask_status
    from tciafs.control.report import json_line, report

    exit_code = 0
    for mount in mounts:
        try:
            answer = _asked(mount, partial(ask_status, mount.path))
        except TciafsError as error:
            exit_code = _fail(_sentence(str(error), error.hint), error.exit_code)
        else:
            _say(json_line(answer) if as_json else report(answer))
    return exit_code


@commands.command()
@click.argument("path", type=click.UNPROCESSED, default=".")
def refresh(path: str) -> None:
    """Ask the archive again for the listings at PATH in a mount (default: the current folder)."""
    mount, inside = _mount_around(path)
    from tciafs.control.client import ask_refresh
    from tciafs.control.report import printable

    _asked(mount, partial(ask_refresh, mount.path, inside))
    _say(f"asked again: {printable(inside)}")


def _mounts_of_user() -> "list[Ours]":
    from tciafs.filesystem.mountpoint import all_of_ours

    if mounts := [mount for mount in all_of_ours() if mount.owner_uid == os.geteuid()]:
        return mounts
    raise Unusable("you have no tciafs mounted")


def _mount_around(word: str) -> "tuple[Ours, str]":
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
        raise Unusable(f"no tciafs is mounted at {printable(word)}")
    mount, _inside = found
    if mount.owner_uid != os.geteuid():
        where = printable(str(mount.path))
        raise Unusable(f"{where} was mounted by the user {mount.owner_uid}, to whom alone its daemon listens")
    return found


def _asked(mount: "Ours", question: Callable[[], A]) -> A:
    """Return a daemon's answer; where there is no daemon, say whether the mount is dead."""
    from tciafs.filesystem.mountpoint import is_dead

    try:
        return question()
    except NoDaemon:
        if is_dead(mount.path):
            quoted = shlex.quote(str(mount.path))
            raise NoDaemon(f"the daemon of {quoted} is dead; clear it with: tciafs umount {quoted}") from None
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        pass  # what it is, and whether it can be mounted on, is looked at later
    except OSError as error:
        raise Unusable(f"{folder} could not be made: {error.strerror}") from error


def _mount(mountpoint: Path, settings: Settings, foreground: bool) -> None:
    from tciafs import daemon
    from tciafs.filesystem.mountpoint import prepare

    try:
        mountpoint = prepare(mountpoint)
        if foreground:
            daemon.run_in_foreground(settings, mountpoint)
        else:
            _say(daemon.start(settings, mountpoint))
    except Exception:
        if settings.log_level == "debug":
            traceback.print_exc()
        raise


def _say(message: str) -> None:
    """Write a sentence to stdout; a path in it may be no UTF-8."""
    click.echo(message.encode(errors="surrogateescape"))


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = commands.main(prog_name="tciafs", standalone_mode=False)
    except click.ClickException as error:
        code = _fail(_usage_sentence(error), error.exit_code)
    except click.Abort:
        code = 130
    except TciafsError as error:
        code = _fail(_sentence(str(error), error.hint), error.exit_code)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        code = _fail(_sentence(said, TciafsError.hint), TciafsError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(sentence: str, exit_code: int) -> int:
    click.echo(f"tciafs: {sentence}", err=True)
    return exit_code


def _usage_sentence(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    said = " ".join(error.format_message().split()).rstrip(".")
    return _sentence(said, f"See {context.command_path if context else 'tciafs'} --help.")


def _sentence(said: str, hint: str) -> str:
    """Return what went wrong and, where there is a hint, what to do about it."""
    if not hint:
        return said
    return f"{said}{'' if said.endswith('?') else '.'} {hint}"
