"""The manual page: what is in it, and that man shows it without a complaint."""

import re
import shutil
import subprocess

import click
import pytest

from tciafs import cli
from tciafs.settings import declarations
from tests.man_page import MAN_PAGE, man_page


@pytest.fixture(scope="module")
def shown() -> str:
    """The page as man shows it, with all its complaints an error."""
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "-l", MAN_PAGE],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "MANWIDTH": "200", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(".\b", "", done.stdout)


def test_man_shows_it_and_complains_of_nothing(shown: str) -> None:
    for heading in ("NAME", "SYNOPSIS", "COMMANDS", "SETTINGS", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert re.search(f"^{heading}$", shown, re.MULTILINE), heading
    assert "tciafs - The Cancer Imaging Archive as folders; only what is read is downloaded\n" in shown


def test_all_commands_and_settings_are_shown_as_they_are_written(shown: str) -> None:
    every = cli.commands.commands.items()
    commands = [name for name, each in every if not isinstance(each, click.Group) and not each.hidden]
    for words in (*(f"tciafs {name}" for name in commands), *(each.option for each in declarations())):
        assert words in shown
    assert "       tciafs prefetch --mount /mnt/tcia cohort.tcia\n" in shown
    assert "\\" not in shown.replace("\\x", "")


def test_the_page_is_the_same_each_time() -> None:
    assert man_page() == man_page()
