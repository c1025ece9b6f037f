"""What our processes do without, so that they start sooner."""

import gc
import subprocess
import sys

import pytest

from tciafs.starting import without_collector

NOT_NEEDED = {"rich", "pygments", "httpx._main"}


@pytest.mark.parametrize(
    "process", ["import tciafs.cli.mounting, tciafs.filesystem.mount", "import tciafs.worker.__main__"]
)
def test_a_process_starts_without_what_only_the_command_of_httpx_takes(process: str) -> None:
    script = f"{process}, sys; print(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "httpx" in loaded
    assert loaded & NOT_NEEDED == set()


def test_the_collector_is_at_work_again_whatever_an_import_ends_with() -> None:
    with without_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), without_collector():
        raise ImportError
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["/nowhere/at/all"], "agreeing completing mounting output program words"),
        (["pasue"], "completing output program words"),
        (["cite", "/nowhere/at/all"], "citing completing daemons exporting output program words"),
    ],
)
def test_a_command_imports_no_other(words: list[str], modules: str) -> None:
    script = (
        "import atexit, sys; from tciafs.cli import main\n"
        "atexit.register(lambda: print(*sys.modules))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert "tciafs: " in done.stderr
    ours = (
        name.removeprefix("tciafs.cli.") for name in done.stdout.split() if name.startswith("tciafs.cli.")
    )
    assert sorted(ours) == modules.split()
