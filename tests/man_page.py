"""The manual page docs/tciafs.1, made of what the command line knows of itself.

`python -m tests.test_docs` writes it anew. Defined here and only here: what the page looks like; see
man-pages(7) and groff_man(7).
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from tciafs import __version__, cli
from tciafs.settings import declarations

__all__ = ["MAN_PAGE", "man_page"]

MAN_PAGE = Path(__file__).resolve().parents[1] / "docs" / "tciafs.1"

HEAD = '.\\" written by python -m tests.test_docs; do not edit by hand\n'

EXIT_CODES = (
    ("0", "all is well"),
    ("1", "the work, or some of it, failed"),
    ("2", "wrong use"),
    ("3", "the mount point, or FUSE, cannot be used"),
    ("4", "the archive refused: log in, or ask for permission"),
    ("130", "Ctrl-C"),
)

FILES = (
    ("~/.config/tciafs/config.toml", "settings, in the names of options with _ for -"),
    ("~/.cache/tciafs", "listings and series; --cache-dir has them elsewhere"),
    (
        "~/.local/state/tciafs/log/tciafs.log",
        "the log of mounts in the background; --log-file has it elsewhere",
    ),
)

ENVIRONMENT = (
    ("TCIAFS_NAME", "each setting, for example TCIAFS_CACHE_SIZE; tciafs config shows which one holds"),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "proxies"),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "certificates to trust"),
    ("XDG_CONFIG_HOME, XDG_CACHE_HOME, XDG_STATE_HOME", "where the files below are"),
    ("NO_COLOR", "no colours, on terminals neither"),
)


def man_page() -> str:
    """Return the page as it should be."""
    return HEAD + "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    about = cli.commands.get_short_help_str(200).rstrip(".")
    yield f'.TH TCIAFS 1 "" "tciafs {__version__}" "User Commands"'
    yield from (".ad l", ".nh")
    yield from (".SH NAME", f"tciafs \\- {_text(about)}")
    yield ".SH SYNOPSIS"
    yield from (".B tciafs", "[OPTION...] MOUNTPOINT", ".br", ".B tciafs", "COMMAND [OPTION...] [WORD...]")
    yield ".SH DESCRIPTION"
    yield from _help(cli.commands)
    yield from (
        ".PP",
        "A first word that is the name of a command is that command; any other is a mount point.",
    )
    yield ".SH COMMANDS"
    for name, command in _commands(cli.commands, "tciafs"):
        yield from _command(name, command)
    yield ".SH SETTINGS"
    yield "These are options of"
    yield from (".BR mount ,", ".BR demo ,", ".B config", "and", ".BR doctor .")
    yield "They may also stand in the environment, in the configuration file, and behind"
    yield from (".BR \\-o .", "The first place of these that names a setting wins.")
    for each in declarations():
        metavar = f" {each.metavar}" if each.metavar else ""
        default = f" Default: {each.default_text}." if each.default_text else ""
        yield from _item(f"{each.option}{metavar}", each.help + default)
    for title, items in (("EXIT STATUS", EXIT_CODES), ("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield f".SH {title}"
        for what, said in items:
            yield from _item(what, said)
    yield from (".SH SEE ALSO", ".BR fusermount3 (1),", ".BR mount.fuse3 (8)")


def _commands(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands but groups, by what one writes."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above} {name}")
        elif not command.hidden:
            yield f"{above} {name}", command


def _command(name: str, command: click.Command) -> Iterator[str]:
    with click.Context(command, info_name=name) as context:
        words = " ".join(command.collect_usage_pieces(context))
        yield f".SS {_text(f'{name} {words}')}"
        yield from _help(command)
        known = {each.name for each in declarations()}
        options = [
            each for each in command.params if isinstance(each, click.Option) and each.name not in known
        ]
        records = [record for each in options if (record := each.get_help_record(context)) is not None]
    for what, said in records:
        yield from _item(what, said)


def _help(command: click.Command) -> Iterator[str]:
    """Yield the help of a command; what begins with \\b is left as it is, as click does."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        if paragraph.startswith("\b\n"):
            yield from (".PP", ".nf", *map(_text, paragraph.split("\n")[1:]), ".fi")
        else:
            if number:
                yield ".PP"
            yield _text(" ".join(paragraph.split()))


def _item(what: str, said: str) -> Iterator[str]:
    yield from (".TP", f".B {_text(what)}", _text(" ".join(said.split())))


def _text(text: str) -> str:
    """Return a line in which nothing means anything to roff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("~", "\\(ti").replace("^", "\\(ha").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped
