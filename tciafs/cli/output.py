"""What a command says: sentences on stdout and stderr, whatever bytes a path in them has.

Defined here and only here: when there are colours, which is on a terminal, unless NO_COLOR is set.
"""

import os
import sys
from typing import Any

import click

from tciafs.errors import TciafsError

__all__ = ["fail", "fail_with", "say", "sentence", "styled"]


def say(message: str) -> None:
    """Write a sentence to stdout; a path in it may be no UTF-8."""
    click.echo(message.encode(errors="surrogateescape"))


def styled(text: str, *, on_stderr: bool = False, **style: Any) -> str:
    """Return a text for stdout in a style of `click.style`, where a terminal shows it and nobody minds.

    See https://no-color.org: any value of NO_COLOR but an empty one.
    """
    stream = sys.stderr if on_stderr else sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return click.style(text, **style)


def fail(sentence: str, exit_code: int) -> int:
    name = styled("tciafs:", on_stderr=True, fg="red", bold=True)
    click.echo(f"{name} {sentence}", err=True)
    return exit_code


def fail_with(error: TciafsError, exit_code: int | None = None) -> int:
    """Say an error and its remedy; return its exit code, or the one given instead."""
    return fail(sentence(str(error), error.hint), error.exit_code if exit_code is None else exit_code)


def sentence(said: str, hint: str) -> str:
    """Return what went wrong and, where there is a hint, what to do about it."""
    if not hint:
        return said
    return f"{said}{'' if said.endswith('?') else '.'} {hint}"
