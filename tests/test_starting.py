"""What our processes do without, so that they start sooner."""

import gc
import subprocess
import sys

import pytest

from tciafs.starting import without_collector

NOT_NEEDED = {"rich", "pygments", "httpx._main", "h2", "hpack", "httpcore._async.http2"}


@pytest.mark.parametrize(
    "process", ["import tciafs.cli.mounting, tciafs.filesystem.mount", "import tciafs.worker.__main__"]
)
def test_a_process_starts_without_what_httpx_can_do_and_we_do_not_ask_for(process: str) -> None:
    loaded = loaded_by(f"{process}, httpcore")  # which the first client imports
    assert {"httpx", "httpcore._async.http11"} <= loaded
    assert loaded & NOT_NEEDED == set()


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a new process has behind an import."""
    script = f"{statement}, sys; print(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_a_daemon_imports_no_command_line() -> None:
    loaded = loaded_by("import tciafs.daemon, tciafs.filesystem.mount")
    assert loaded & {"click", "keyring", "tciafs.launching", "tciafs.control.report"} == set()
    assert {each for each in loaded if each.startswith("tciafs.control.")} == {"tciafs.control.place"}


def test_a_daemon_is_begun_before_its_command_imports_what_comes_behind() -> None:
    loaded = loaded_by("import tciafs.cli.mounting, tciafs.agreement, tciafs.launching")
    assert loaded & {"msgspec", "logging", "tciafs.daemon", "tciafs.logs", "tciafs.naming"} == set()


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
