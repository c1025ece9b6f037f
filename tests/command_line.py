"""The command line run in this process: what it printed, and its exit code."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tciafs import cli
from tciafs.settings import declarations

__all__ = ["Result", "Run", "command_line", "without_settings"]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def command_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *first: str) -> Run:
    """Return what runs `tciafs` with some words, behind those that come `first`."""

    def run(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["tciafs", *first, *words])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert isinstance(exit.value.code, int)
        out, err = capfd.readouterr()
        return Result(exit.value.code, out, err)

    return run


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the settings that the environment has."""
    for each in declarations():
        monkeypatch.delenv(each.variable, raising=False)
