"""Help that teaches: every command shows how it is used, and what it shows is understood."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tciafs import cli
from tciafs.setting_sources import load_settings
from tciafs.settings import declarations
from tests.test_docs import refusal_of, tciafs_words


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, f"{above}{name} ")
        elif not each.hidden:
            yield above + name, each


def examples(command: click.Command) -> list[str]:
    """Return the commands that a help shows, without the words behind them."""
    lines = re.findall(r"^ {2,}(tciafs .*)$", inspect.cleandoc(command.help or ""), re.MULTILINE)
    return [re.split(r" {2,}", line)[0] for line in lines]


@pytest.mark.parametrize(("name", "command"), list(commands(cli.commands)))
def test_every_command_shows_examples_of_itself_that_are_understood(
    name: str, command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def only_read_settings(**given: Any) -> None:
        called.append(name)
        options = {each.name: given[each.name] for each in declarations() if given.get(each.name) is not None}
        load_settings(options, ",".join(given.get("mount_options", ())), {}, Path("/dev/null"))

    monkeypatch.setattr(command, "callback", only_read_settings)
    shown = [] if name == "completion" else examples(command)
    for example in shown:
        for words in tciafs_words(example):
            assert refusal_of(words) == "", example
    assert len(called) == len(shown)
    assert shown or name == "completion"


@pytest.mark.parametrize(("name", "command"), list(commands(cli.commands)))
def test_every_option_says_what_it_does_in_sentences(name: str, command: click.Command) -> None:
    assert inspect.cleandoc(command.help or "").split("\n\n")[0].endswith(".")
    for each in command.params:
        if isinstance(each, click.Option):
            assert re.match(r"[A-Z].*\.", each.help or ""), each.name
