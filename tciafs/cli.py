"""The commands: words into Settings, errors into one clear line and an exit code.

`tciafs NAME` where NAME is a command is that command; anything else is a mount point. Imports what is
heavy only where it is used, so that `--help` is instant.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tciafs import __version__
from tciafs.errors import Misuse, TciafsError
from tciafs.settings import Settings, declarations, load_settings

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

NOT_YET = frozenset(
    ["config", "doctor", "du", "evict", "export", "login", "logout", "manifest", "pause", "pin"]
).union(["prefetch", "refresh", "resume", "status", "unpin", "verify"])
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
        # Options before the mount point (tciafs --offline /mnt/tcia) are those of mounting.
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h", "--version"):
            args = ["mount", *args]
        return super().parse_args(ctx, args)


def setting_options(command: F) -> F:
    """Give a command the options that every mount understands."""
    for each in reversed(list(declarations())):
        text = each.help + (f"  [default: {each.default_text}]" if each.default_text else "")
        command = click.option(
            each.option,
            each.name,
            help=text,
            metavar=each.metavar or None,
            is_flag=each.is_flag,
            flag_value="true" if each.is_flag else None,
            default=None,
        )(command)
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
    epilog="tciafs --archive sample DIR mounts the bundled sample. Documentation: docs/ in the sources.",
)
@click.version_option(__version__, prog_name="tciafs")
def commands() -> None:
    """The Cancer Imaging Archive as folders; only what is read is downloaded.

    \b
      tciafs /mnt/tcia              mount; ls, cp and open what you like
      tciafs umount /mnt/tcia       unmount
      tciafs demo                   try it on the bundled sample: no account, no network
    """


@commands.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@setting_options
def mount(
    mountpoint: Path,
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> None:
    """Mount the archive at MOUNTPOINT, an empty folder. Returns once it answers."""
    _mount(mountpoint, _settings(mount_options, config, options), foreground)


@commands.command()
@click.argument("mountpoint", type=click.Path(path_type=Path), required=False)
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
    if mountpoint is None:
        mountpoint = Path(tempfile.mkdtemp(prefix="tciafs-demo-"))
    mountpoint.mkdir(parents=True, exist_ok=True)
    _mount(mountpoint, settings, foreground)
    if not foreground:
        click.echo(f"Look around in {mountpoint}, then: tciafs umount {mountpoint}")


@commands.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
def umount(mountpoint: Path) -> None:
    """Unmount MOUNTPOINT; also clears a mount whose daemon died."""
    from tciafs.filesystem.mountpoint import clear_dead_mount, unmount

    if not clear_dead_mount(mountpoint):
        unmount(mountpoint)


def _mount(mountpoint: Path, settings: Settings, foreground: bool) -> None:
    from tciafs import daemon
    from tciafs.filesystem.mountpoint import prepare

    mountpoint = prepare(mountpoint)
    if foreground:
        daemon.run_in_foreground(settings, mountpoint)
    else:
        click.echo(daemon.start(settings, mountpoint))


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = commands.main(prog_name="tciafs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except TciafsError as error:
        click.echo(f"tciafs: {error}{f'. {error.hint}' if error.hint else ''}", err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
