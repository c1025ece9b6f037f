"""Completion in a shell: what a word of a command line may become, and `tciafs completion`.

click has the rest: its scripts for bash, zsh and fish ask this program again with each TAB. Nothing in a
mount is looked at for that, but by the shell itself where a path is completed.
"""

import os
from typing import TYPE_CHECKING

import click
from click.types import UnprocessedParamType

from tciafs.errors import Misuse, TciafsError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["FOLDER", "MOUNT_POINT", "PATH", "Words", "completion"]

SHELLS = ("bash", "zsh", "fish")

COMPLETE_VARIABLE = "_TCIAFS_COMPLETE"


class Words(UnprocessedParamType):
    """A word that is taken as it is, and for which some are offered."""

    def __init__(self, *offered: str) -> None:
        self._offered = offered

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self._offered if word.startswith(incomplete)]


class _Path(UnprocessedParamType):
    """A path that the shell completes, of a file or only of a folder; what it names is not looked at."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self._kind)]


class _MountPoint(_Path):
    """Where one of the user's mounts is, or a folder if there is none such."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        fitting = [path for path in _mount_points() if path.startswith(incomplete)]
        return [CompletionItem(path) for path in fitting] or super().shell_complete(ctx, param, incomplete)


FOLDER = _Path("dir")
PATH = _Path("file")
MOUNT_POINT = _MountPoint("dir")


def _mount_points() -> list[str]:
    from tciafs.control.report import printable
    from tciafs.filesystem.mountpoint import all_of_ours

    paths = [str(mount.path) for mount in all_of_ours() if mount.owner_uid == os.geteuid()]
    return sorted(path for path in paths if path == printable(path))


@click.command(short_help="Print what has a shell complete words with TAB.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what has SHELL complete commands, options and mount points of tciafs when you press TAB.

    \b
      eval "$(tciafs completion bash)"      in ~/.bashrc
      eval "$(tciafs completion zsh)"       in ~/.zshrc, behind compinit
      tciafs completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise TciafsError(f"this version of click knows no completion for {shell}")
    try:
        script = kind(ctx.find_root().command, {}, "tciafs", COMPLETE_VARIABLE).source()
    except RuntimeError as error:
        raise Misuse(str(error)) from error
    click.echo(script, nl=False)
