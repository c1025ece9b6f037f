"""Words into settings: the options that every mount understands, and which word is a mount point.

`tciafs NAME` where NAME is a command is that command; anything else is a mount point.
"""

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.types import UnprocessedParamType

from tciafs.cli.completing import FOLDER, PATH, Words
from tciafs.errors import Misuse
from tciafs.setting_kinds import joined_names
from tciafs.setting_sources import Given, given_settings, settings_from
from tciafs.settings import Declaration, Settings, declarations

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "MountOrCommand",
    "demo_options",
    "given_in",
    "mountpoint_in",
    "setting_options",
    "settings_of",
]

F = TypeVar("F", bound=Callable[..., Any])


WHICH_ARCHIVE = frozenset(["archive", "url", "api", "idc_url", "idc_index", "idc_all", "idc_version"])
"""Without effect where the archive is the sample, which is one of NBIA's kind."""


class MountOrCommand(click.Group):
    """A group of commands in which an unknown first word is a mount point."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.resilient_parsing:  # somebody presses TAB, and may not have come to the end of the word
            named = self.get_command(ctx, args[0])
            return super().resolve_command(ctx, args if named else ["mount", *args])
        if self.get_command(ctx, args[0]) is None:
            self._doubt(ctx, args[0])
            return super().resolve_command(ctx, ["mount", *args])
        return super().resolve_command(ctx, args)

    def _doubt(self, ctx: click.Context, word: str) -> None:
        """Raise Misuse where a word is all but a command, and no folder that could be mounted on."""
        close = difflib.get_close_matches(word, self.list_commands(ctx), n=1, cutoff=0.75)
        if close and "/" not in word and not os.path.lexists(word):
            raise Misuse(f"{word} is neither a command nor a folder; did you mean tciafs {close[0]}?")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the commands a first word may become, else the options of mounting, or a folder."""
        from click.shell_completion import CompletionItem

        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-") and (mount := self.get_command(ctx, "mount")) is not None:
            return found + mount.shell_complete(ctx, incomplete)
        return found or [CompletionItem(incomplete, type="dir")]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = args or ["--help"]
        # Options before the mount point (tciafs --offline /mnt/tcia) are those of mounting.
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h", "--version"):
            args = ["mount", *args]
        return super().parse_args(ctx, args)


def setting_options(command: F) -> F:
    """Give a command the options that every mount understands."""
    return _with_settings(command, list(declarations()))


def demo_options(command: F) -> F:
    """Give a command the same, but for those that say which archive it is."""
    return _with_settings(command, [each for each in declarations() if each.name not in WHICH_ARCHIVE])


def _with_settings(command: F, settings: Sequence[Declaration]) -> F:
    for each in reversed(settings):
        text = each.help + (f"  [default: {each.default_text}]" if each.default_text else "")
        # An option that is given any flag_value, None too, would no longer need its value.
        kind: dict[str, Any] = {"metavar": each.metavar, "type": _type_of(each)}
        if each.is_flag:
            kind = {"is_flag": True, "flag_value": "true"}
        elif each.is_list:
            kind |= {"multiple": True, "callback": _as_one_text}
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


def _type_of(setting: Declaration) -> UnprocessedParamType:
    """Return what completes a setting; its text is read later, wherever it comes from."""
    return {"FOLDER": FOLDER, "FILE": PATH}.get(setting.metavar) or Words(*setting.choices)


def _as_one_text(_ctx: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> str | None:
    """Return the values of an option that may be repeated as one text."""
    return joined_names(words) if words else None


def settings_of(
    mount_options: tuple[str, ...], config: Path | None, options: dict[str, str | None]
) -> Settings:
    return settings_from(given_in(mount_options, config, options))


def given_in(
    mount_options: tuple[str, ...], config: Path | None, options: dict[str, str | None]
) -> dict[str, Given]:
    """Return what of the settings is given by options, the environment and the configuration file."""
    given = {name: text for name, text in options.items() if text is not None}
    return given_settings(given, ",".join(mount_options), file=config)


def mountpoint_in(words: tuple[str, ...], mount_options: tuple[str, ...]) -> Path:
    """Return the mount point; mount(8) puts the first field of a line in /etc/fstab before it.

    mount(8) always adds -o. Without, a second word is a mistake: of who writes unmount, for example.
    """
    places = 2 if mount_options else 1
    if len(words) > places:
        raise click.UsageError(f"Got unexpected extra argument ({words[places]})")
    if not words[-1]:
        raise Misuse("the mount point is an empty word")
    return Path(words[-1])
