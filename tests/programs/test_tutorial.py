"""The tutorial, typed as it stands: each command is run, and prints what the page says."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.mounting import is_mounted, marked_environment, run
from tests.test_docs import ROOT, blocks_of, shown_in

pytestmark = pytest.mark.mount

PAGE = ROOT / "docs" / "tutorial.md"


def as_pattern(output: str, home: Path) -> str:
    """Return a pattern for what a page shows to Ann: "..." is anything, also several lines."""
    text = output.replace("/home/ann", str(home)) + ("\n" if output else "")
    return re.escape(text).replace(re.escape("..."), "(?s:.*)")


def test_each_step_of_the_tutorial_prints_what_the_page_says(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3", "tciafs"):
        words = f'"{sys.executable}"' + (" -m tciafs" if name == "tciafs" else "")
        (tools / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (tools / name).chmod(0o755)
    environment = marked_environment("tutorial") | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    steps = [each for block in blocks_of(PAGE.read_text("utf-8")) for each in shown_in(block)]
    assert len(steps) > 10
    try:
        for step in steps:
            done = run("sh", "-c", f"cd '{tmp_path}' && {{ {step.command}; }} 2>&1", environment=environment)
            assert re.fullmatch(as_pattern(step.output, tmp_path), done.stdout), (
                f"{step.command}\n{done.stdout}"
            )
    finally:
        if is_mounted(tmp_path / "tcia"):
            run("fusermount3", "-u", "-z", "--", tmp_path / "tcia")
