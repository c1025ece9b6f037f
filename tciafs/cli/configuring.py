"""`tciafs config`: what each setting is, and where that comes from. Nothing is asked and nothing mounted."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tciafs.cli.completing import Words
from tciafs.cli.output import say, styled
from tciafs.cli.words import given_in, setting_options
from tciafs.setting_sources import Given, config_path, settings_from, unknown
from tciafs.settings import Declaration, Settings, declarations

__all__ = ["config"]

LOGIN_IN_ADDRESS = re.compile(r"(?<=//)[^/?#]*@")
"""A user and a password, which do not belong into an address and are refused by a mount."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting as it holds: the text a user would write ("": it is left open), its value, and its origin."""

    name: str
    text: str
    value: object
    source: str
    place: str

    def as_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {"value": self.value, "text": self.text, "source": self.source, "place": self.place}


@click.command(short_help="Show each setting, and where it comes from.")
@click.argument("names", type=Words(*(each.name for each in declarations())), nargs=-1, metavar="[NAME...]")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON; sizes in bytes, times in seconds.")
@setting_options
def config(
    names: tuple[str, ...],
    as_json: bool,
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> None:
    """Show what each setting is, and where that comes from (default: all of them).

    Takes the options of a mount, and shows what a mount with these options would use.

    \b
      tciafs config                           all settings
      tciafs config --cache-size 200G cache_size downloads
      tciafs config --json cache_dir
    """
    given = given_in(mount_options, config, options)
    settings = list(_settings(given, settings_from(given), _meant(names)))
    file = config or config_path()
    if as_json:
        shown = {each.name: each.as_json() for each in settings}
        say(json.dumps({"file": str(file), "settings": shown}))
        return
    _show(settings)
    if not names:
        there = "" if file.exists() else ", which is not there"
        say(f"\nThe configuration file is {_printable(file)}{there}.")


def _meant(names: tuple[str, ...]) -> Sequence[Declaration]:
    """Return the settings with these names (none: all). Raises Misuse for one that does not exist."""
    known = {each.name: each for each in declarations()}
    wanted = [name.removeprefix("--").replace("-", "_") for name in names]
    for name in wanted:
        if name not in known:
            raise unknown(name)
    return [known[name] for name in wanted or known]


def _settings(
    given: Mapping[str, Given], settings: Settings, meant: Sequence[Declaration]
) -> Iterator[_Setting]:
    for each in meant:
        default = Given(each.default_text or ("false" if each.is_flag else ""), "default", "default")
        one = given.get(each.name, default)
        value = _plain(getattr(settings, each.name))
        yield _Setting(each.name, _without_login(one.text), value, one.source, one.place)


def _plain(value: object) -> Any:
    """Return a value as JSON has it: paths and days as texts."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str):
        return _without_login(value)
    return value if value is None or isinstance(value, bool | int) else str(value)


def _without_login(text: str) -> str:
    return LOGIN_IN_ADDRESS.sub("***@", text)


def _show(settings: Sequence[_Setting]) -> None:
    rows = [(each.name, _origin(each), _printable(each.text) or "-") for each in settings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for each, (name, origin, text) in zip(settings, rows, strict=True):
        line = f"{name:{widths[0]}}  {origin:{widths[1]}}  {text}"
        say(line if each.source == "default" else styled(line, bold=True))


def _origin(each: _Setting) -> str:
    return "configuration file" if each.source == "file" else each.place


def _printable(text: object) -> str:
    from tciafs.control.report import printable

    return printable(str(text))
