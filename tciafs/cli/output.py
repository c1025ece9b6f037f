"""What a command says: sentences on stdout and stderr, whatever bytes a path in them has."""

import click

__all__ = ["fail", "say", "sentence"]


def say(message: str) -> None:
    """Write a sentence to stdout; a path in it may be no UTF-8."""
    click.echo(message.encode(errors="surrogateescape"))


def fail(sentence: str, exit_code: int) -> int:
    click.echo(f"tciafs: {sentence}", err=True)
    return exit_code


def sentence(said: str, hint: str) -> str:
    """Return what went wrong and, where there is a hint, what to do about it."""
    if not hint:
        return said
    return f"{said}{'' if said.endswith('?') else '.'} {hint}"
