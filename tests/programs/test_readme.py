"""What the README shows of the demonstration, typed as it stands: commands print it, and the Python works.

`make` runs the real Makefile and `.ci/demo` in a checkout of its own, whose environment stands in for the one
that `.ci/setup` would make.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting import is_mounted, marked_environment, run
from tests.test_docs import ROOT, Block, blocks_of, prose_of, shown_in

pytestmark = pytest.mark.mount

README = (ROOT / "README.md").read_text("utf-8")
SECTION = README.partition("\n## See it\n")[2].partition("\n## ")[0]
STARTED_BY = {
    "tciafs": 'import runpy; runpy.run_module("tciafs", run_name="__main__")',
    "pydicom": "from pydicom.cli.main import main; main()",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A folder that looks like a checkout which is set up."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / ".ci" / "demo", tmp_path / ".ci")
    scripts = {tmp_path / ".ci" / "setup": "exit 0"}
    for name, start in STARTED_BY.items():
        scripts[tmp_path / ".venv" / "bin" / name] = f"""exec '{sys.executable}' -c '{start}' "$@" """
    for path, line in scripts.items():
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    yield tmp_path
    if is_mounted(tmp_path / "demo"):
        run("fusermount3", "-u", "-z", "--", tmp_path / "demo")


def environment(checkout: Path) -> dict[str, str]:
    """Return what a shell in the checkout has."""
    return marked_environment("readme") | {
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C",
        "TZ": "UTC",
        "USER": "root",
        "XDG_STATE_HOME": str(checkout / "state"),
    }


def type_in(checkout: Path, block: Block) -> None:
    """Run the commands of a block, which print what it shows; "..." is anything, also several lines."""
    for shown in shown_in(block):
        words = ["sh", "-c", f"cd '{checkout}' && {{ {shown.command}; }} 2>&1"]
        done = run(*words, environment=environment(checkout))
        assert done.returncode == 0, done.stdout
        expected = re.escape(shown.output + "\n").replace(re.escape("..."), "(?s:.*)")
        assert not shown.output or re.fullmatch(expected, with_owner(done.stdout)), done.stdout


def with_owner(text: str) -> str:
    """Return what `ls -l` prints as it does for root."""
    return re.sub(r"^(-r--r--r-- 1) \S+ +\S+ +", r"\1 root root ", text, flags=re.MULTILINE)


def test_the_demonstration_prints_what_the_readme_shows(checkout: Path) -> None:
    blocks = list(blocks_of(SECTION))
    assert [block.language for block in blocks] == ["console", "console", "python"]
    for block in blocks[:2]:
        type_in(checkout, block)
    lines = blocks[2].lines
    done = run(sys.executable, "-c", "\n".join([f"import os; os.chdir({str(checkout)!r})", *lines]))
    shown = lines[-1].partition("  # ")[2]
    assert (done.returncode, done.stdout) == (0, f"{shown}\n"), done.stderr
    assert "`make demo-stop` unmounts it" in prose_of(SECTION)
    for expected in ("unmounted demo", "nothing is mounted on demo"):
        stopped = run("make", "-sC", checkout, "demo-stop", environment=environment(checkout))
        assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, f"{expected}\n", "")
    assert not os.path.lexists(checkout / "demo")
