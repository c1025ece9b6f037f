"""The log: which line goes where, what it looks like, and files that are set aside, moved and reopened."""

import contextvars
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs import logs, request_ids
from tciafs.errors import Unusable
from tciafs.log_files import open_log
from tciafs.logs import LogFile
from tciafs.settings import Settings

pytestmark = pytest.mark.usefixtures("quiet_logging")


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("tciafs.x", level, __file__, 1, message, (), None)


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    """A log file that is set aside from 100 bytes on, and twice at most."""
    path = tmp_path / "logs" / "log"
    handler = LogFile(path, open_log(path), most_bytes=100, kept=2)
    yield handler
    handler.close()


# Where a line goes


def test_console_and_file_have_a_level_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    logs.start_logging(
        Settings(log_file=path, log_level="error", log_file_level="debug"), in_background=False
    )
    logging.getLogger("tciafs.x").debug("fine")
    logging.getLogger("httpx").info("of a library")
    assert capsys.readouterr().err == ""
    (line,) = path.read_text().splitlines()
    assert line.endswith(" DEBUG tciafs.x: fine")


def test_without_a_level_of_its_own_the_file_has_that_of_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    logs.start_logging(Settings(log_file=path, log_level="info"), in_background=False)
    logging.getLogger("tciafs.x").info("so much")
    logging.getLogger("tciafs.x").debug("too much")
    assert path.read_text() == capsys.readouterr().err
    assert path.read_text().endswith(" INFO tciafs.x: so much\n")


def test_the_level_can_be_changed_while_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    logs.start_logging(Settings(log_file=path, log_level="error"), in_background=False)
    for level in ("debug", "error"):
        logs.set_level(level)
        logging.getLogger("tciafs.x").debug("at level %s", level)
    assert path.read_text() == capsys.readouterr().err
    assert path.read_text().count("\n") == 1
    assert "at level debug" in path.read_text()


def test_a_file_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(Unusable, match="cannot be written"):
            logs.start_logging(Settings(log_file=path), in_background=False)


# What a line looks like


def test_what_was_done_for_one_request_has_its_number_and_all_else_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.start_logging(Settings(log_level="info"), in_background=False)
    log = logging.getLogger("tciafs.x")

    def ask(answer: str) -> int:
        request_ids.begin()
        log.info("asked")
        contextvars.copy_context().run(log.info, answer)
        return request_ids.current()

    first, second = (contextvars.copy_context().run(ask, answer) for answer in ("yes", "no"))
    contextvars.Context().run(log.info, "for nobody")
    assert first != second
    lines = [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        f"[{first}] INFO tciafs.x: asked",
        f"[{first}] INFO tciafs.x: yes",
        f"[{second}] INFO tciafs.x: asked",
        f"[{second}] INFO tciafs.x: no",
        "INFO tciafs.x: for nobody",
    ]


def test_a_record_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start_logging(Settings(log_level="info"), in_background=False)
    contextvars.Context().run(logging.getLogger("tciafs.x").info, "%s", "a\nERROR b\x1b[2J \udcff")
    assert capsys.readouterr().err.endswith(" INFO tciafs.x: a\\nERROR b\\x1b[2J \\udcff\n")


# The file


def test_a_file_that_is_full_is_set_aside_and_so_many_are_kept(log_file: LogFile) -> None:
    for letter in "abcd":
        log_file.emit(record(letter * 150))
    here = {path.name: path.read_text()[0] for path in log_file.path.parent.iterdir()}
    assert here == {"log": "d", "log.1": "c", "log.2": "b"}
    log_file.emit(record("e"))
    assert log_file.path.read_text() == "e\n"
    assert {path.stat().st_mode & 0o777 for path in log_file.path.parent.iterdir()} == {0o600}


def test_nothing_is_kept_of_a_full_file_if_none_is_wanted(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "log", open_log(tmp_path / "log"), most_bytes=10, kept=0)
    for letter in "ab":
        handler.emit(record(letter * 20))
    handler.close()
    assert [path.read_text()[0] for path in tmp_path.iterdir()] == ["b"]


def test_a_file_of_any_size_stays_if_wanted(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "log", open_log(tmp_path / "log"), most_bytes=0, kept=5)
    for letter in "ab":
        handler.emit(record(letter * 20))
    handler.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == [f"{'a' * 20}\n{'b' * 20}\n"]


def test_a_file_that_was_moved_or_removed_is_noticed(log_file: LogFile) -> None:
    log_file.emit(record("one"))
    moved = log_file.path.rename(log_file.path.with_name("log-2026"))
    log_file.emit(record("two"))
    assert (moved.read_text(), log_file.path.read_text()) == ("one\n", "two\n")
    log_file.path.unlink()
    log_file.emit(record("three"))
    assert log_file.path.read_text() == "three\n"


def test_two_daemons_with_one_file_set_it_aside_once(log_file: LogFile) -> None:
    other = LogFile(log_file.path, open_log(log_file.path), most_bytes=100, kept=2)
    log_file.emit(record("a" * 150))
    other.emit(record("b"))
    log_file.emit(record("c"))
    other.close()
    assert log_file.path.read_text() == "b\nc\n"
    assert log_file.path.with_name("log.1").read_text() == "a" * 150 + "\n"
    assert not log_file.path.with_name("log.2").exists()


def test_what_else_writes_to_the_descriptor_goes_along(log_file: LogFile) -> None:
    descriptor = log_file.stream.fileno()
    log_file.emit(record("a" * 150))
    log_file.emit(record("b"))
    os.write(descriptor, b"a traceback\n")
    assert log_file.path.read_text() == "b\na traceback\n"


def test_a_folder_that_has_gone_costs_no_record(log_file: LogFile) -> None:
    log_file.path.unlink()
    log_file.path.parent.rmdir()
    log_file.emit(record("into the void"))
    log_file.path.parent.mkdir()
    log_file.emit(record("back"))
    assert log_file.path.read_text() == "back\n"


def test_what_is_no_file_is_left_alone() -> None:
    handler = LogFile(Path("/dev/null"), open_log(Path("/dev/null")), most_bytes=1, kept=1)
    handler.emit(record("nothing"))
    handler.close()


# Stacks


def test_the_stacks_of_a_process_that_does_nothing_else_are_in_its_log(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tciafs import logs\n"
        "from tciafs.settings import Settings\n"
        "handled = []\nsignal.signal(signal.SIGUSR1, lambda *_: handled.append(1))\n"
        "logs.start_logging(Settings(log_file=Path(sys.argv[1])), in_background=False)\n"
        "def stuck():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    logs.write_plainly(f'handled: {handled}\\n')\n"
        "with logs.stacks_on_signal(signal.SIGUSR1): stuck()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "log"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "log").read_text()
    assert "in stuck\n" in text
    assert text.endswith("handled: [1]\n")


def test_a_signal_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    monkeypatch.setattr(logs, "_descriptor", lambda: 2)
    with logs.stacks_on_signal(signal.SIGUSR2):
        pass
    assert signal.getsignal(signal.SIGUSR2) == before
