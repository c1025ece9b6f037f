"""`tciafs status --web`: one page in a browser on this machine, as long as the command runs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from tciafs.cli.output import say

if TYPE_CHECKING:
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["browse"]


def browse(find: "Callable[[], Sequence[Ours]]") -> int:
    """Serve the page until Ctrl-C; return an exit code. Raises what `find` raises the first time."""
    find()
    from tciafs.web.server import serve_until_told

    serve_until_told(lambda: [each.path for each in find()], _announce)
    return 0


def _announce(address: str) -> None:
    say(address)
    click.echo("Open it in a browser on this machine; Ctrl-C ends it.", err=True)
