"""The mount as a process: how it gets its settings, what it answers, and what is said when it does not.

Most tests put a script in the daemon's place; the last ones run the real daemon as far as it gets without
a kernel, and the sentences of real failures.
"""

import gc
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tciafs import daemon, launching
from tciafs.errors import AccessDenied, Misuse, TciafsError, Unreachable, Unusable
from tciafs.settings import Settings

Daemons = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """Let the collector look again through what `serve` hides from it."""
    yield
    gc.unfreeze()


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    """Run a script instead of the daemon; gives the folder where it runs, in which `pid` is its id.

    The script finds `settings` (read from stdin), and `answer(line)`.
    """
    started: list[int] = []
    real = subprocess.Popen

    def replace(script: str) -> Path:
        program = tmp_path / "daemon.py"
        program.write_text(
            "import os, sys, time\n"
            f"folder = {str(tmp_path)!r}\n"
            "def answer(line): print(line, flush=True)\n"
            f"{script}\n"
        )

        def start(command: list[str], **keywords: object) -> subprocess.Popen[bytes]:
            (tmp_path / "command").write_bytes(b"\0".join(os.fsencode(word) for word in command))
            process = real([sys.executable, str(program)], **keywords)  # type: ignore[call-overload]
            started.append(process.pid)
            return process  # type: ignore[no-any-return]

        monkeypatch.setattr(subprocess, "Popen", start)
        return tmp_path

    yield replace
    monkeypatch.undo()
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def settings_in(tmp_path: Path, **fields: object) -> Settings:
    return Settings(log_file=tmp_path / "logs" / "log", **fields)  # type: ignore[arg-type]


READ = "settings = sys.stdin.buffer.read()\n"


# Starting one


def test_the_first_message_of_a_daemon_is_given_back(replaced: Daemons, tmp_path: Path) -> None:
    replaced(READ + """answer('{"message": "/mnt: 6 collections."}'); time.sleep(60)""")
    assert launching.start(settings_in(tmp_path), Path("/mnt")) == "/mnt: 6 collections."


def test_what_a_daemon_says_while_it_takes_long_is_passed_on(
    replaced: Daemons, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(
        READ + """answer('{"waiting": "making a table"}'); answer('{"waiting": "still"}')\n"""
        """answer('{"message": "/mnt: 6 collections."}'); time.sleep(60)"""
    )
    assert launching.start(settings_in(tmp_path), Path("/mnt")) == "/mnt: 6 collections."
    assert capsys.readouterr().err == "tciafs: making a table\ntciafs: still\n"


def test_a_daemon_that_ends_while_it_takes_long_has_ended_without_a_word(
    replaced: Daemons, tmp_path: Path
) -> None:
    replaced(READ + """answer('{"waiting": "making a table"}')""")
    with pytest.raises(TciafsError, match="ended without a word"):
        launching.start(settings_in(tmp_path), Path("/mnt"))


def test_settings_travel_by_stdin_where_no_process_list_shows_them(replaced: Daemons, tmp_path: Path) -> None:
    folder = replaced(
        READ + "open(folder + '/settings', 'wb').write(settings)\nanswer('{\"message\": \"ready\"}')"
    )
    settings = settings_in(tmp_path, url="https://secret.example", cache_size=1 << 40, offline=True)
    launching.start(settings, Path("/mnt/tcia"))
    words = (folder / "command").read_bytes().split(b"\0")
    assert words[1:] == [b"-P", b"-m", b"tciafs.daemon", b"/mnt/tcia"]
    sent = (folder / "settings").read_bytes()
    assert msgspec.json.decode(sent, type=Settings, dec_hook=daemon._decode_path) == settings


def test_all_settings_arrive_as_they_were_sent() -> None:
    for settings in (
        Settings(),
        Settings(cache_dir=Path("/var/cache/größe"), log_file=Path("/log"), uid=0, gid=65534, umask=0o077),
    ):
        sent = launching._encode(settings)
        assert msgspec.json.decode(sent, type=Settings, dec_hook=daemon._decode_path) == settings


def test_a_mount_point_that_is_no_unicode_is_passed_on_as_it_is(replaced: Daemons, tmp_path: Path) -> None:
    folder = replaced(READ + """answer('{"message": "ready"}')""")
    launching.start(settings_in(tmp_path), Path("/mnt/\udcff"))
    assert (folder / "command").read_bytes().endswith(b"\0/mnt/\xff")


@pytest.mark.parametrize("kind", [TciafsError, Misuse, Unusable, AccessDenied, Unreachable])
def test_an_error_of_the_daemon_is_raised_as_what_it_is(
    replaced: Daemons, tmp_path: Path, kind: type[TciafsError]
) -> None:
    word = json.dumps({"error": kind.__name__, "message": "the reason"})
    replaced(READ + f"answer({word!r}); sys.exit({kind.exit_code})")
    with pytest.raises(kind, match=r"^the reason$") as raised:
        launching.start(settings_in(tmp_path), Path("/mnt"))
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    "script",
    [
        "sys.exit(1)",
        READ + "sys.exit(1)",
        READ + "os.kill(os.getpid(), 9)",
        READ + "answer('Segmentation fault')",
        READ + "answer('')",
        READ + "sys.stdout.write('half a li'); sys.stdout.flush(); sys.exit(1)",
    ],
)
def test_a_daemon_that_ends_without_a_word_is_told_with_its_log(
    replaced: Daemons, tmp_path: Path, script: str
) -> None:
    replaced(script)
    log = tmp_path / "logs" / "log"
    with pytest.raises(TciafsError, match=f"the daemon ended without a word; see {log}"):
        launching.start(settings_in(tmp_path), Path("/mnt"))


def test_a_daemon_that_ends_before_it_reads_its_settings_is_told_too(
    replaced: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced("os.close(0); open(folder + '/closed', 'w').close(); sys.exit(1)")
    encode = launching._encode

    def late(settings: Settings) -> bytes:
        while not (tmp_path / "closed").exists():
            pass
        return encode(settings)

    monkeypatch.setattr(launching, "_encode", late)
    with pytest.raises(TciafsError, match="without a word"):
        launching.start(settings_in(tmp_path), Path("/mnt"))


def test_what_a_daemon_complains_of_is_in_its_log(replaced: Daemons, tmp_path: Path) -> None:
    replaced(READ + "sys.stderr.write('ImportError: no module\\n'); sys.exit(1)")
    for _ in range(2):
        with pytest.raises(TciafsError, match="without a word"):
            launching.start(settings_in(tmp_path), Path("/mnt"))
    assert (tmp_path / "logs" / "log").read_text() == "ImportError: no module\n" * 2


def test_without_a_log_file_the_log_is_in_the_users_folder_for_logs(
    replaced: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    replaced(READ + "sys.exit(1)")
    with pytest.raises(TciafsError, match="tciafs") as raised:
        launching.start(Settings(), Path("/mnt"))
    log = Path(str(raised.value).rpartition(" ")[2])
    assert log.is_relative_to(tmp_path / "state")
    assert log.exists()
    assert log.parent.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_is_told_before_anything_starts(
    replaced: Daemons, tmp_path: Path
) -> None:
    folder = replaced("")
    (tmp_path / "logs").touch()
    with pytest.raises(Unusable, match=r"the log file .*/logs/log cannot be written: "):
        launching.start(settings_in(tmp_path), Path("/mnt"))
    with pytest.raises(Unusable, match="cannot be written: Is a directory"):
        launching.start(Settings(log_file=tmp_path), Path("/mnt"))
    assert not (folder / "command").exists()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> "list[subprocess.Popen[bytes]]":
    """The daemons that were told to end, and have ended."""
    ended: list[subprocess.Popen[bytes]] = []
    real = launching._end

    def end(process: "subprocess.Popen[bytes]") -> None:
        real(process)
        ended.append(process)

    monkeypatch.setattr(launching, "_end", end)
    return ended


def test_a_daemon_that_says_nothing_is_told_to_end(
    replaced: Daemons,
    ended: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced(READ + "time.sleep(60)")
    monkeypatch.setattr(launching, "START_TIMEOUT_S", 0.0)
    with pytest.raises(TciafsError, match=r"the daemon did not answer within 0 s; see .*/log"):
        launching.start(settings_in(tmp_path), Path("/mnt"))
    assert [process.returncode for process in ended] == [-signal.SIGTERM]


def test_ctrl_c_while_the_daemon_starts_ends_the_daemon(
    replaced: Daemons,
    ended: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    replaced(READ + "time.sleep(60)")
    monkeypatch.setattr(select, "select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launching.start(settings_in(tmp_path), Path("/mnt"))
    assert [process.returncode for process in ended] == [-signal.SIGTERM]


def test_a_daemon_that_does_not_end_when_told_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); input()"
    monkeypatch.setattr(launching, "END_TIMEOUT_S", 0.1)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        launching._end(process)
        assert process.returncode == -signal.SIGKILL


# Being one


def be_the_daemon(
    serve: str, settings: Settings | None = None, mountpoint: str = "/mnt"
) -> "subprocess.CompletedProcess[bytes]":
    """Run the real daemon with `serve` replaced by a script that finds its parameters."""
    program = (
        "import sys, logging, tciafs.daemon as daemon\n"
        "from tciafs.errors import *\n"
        f"def serve(settings, mountpoint, ready, waiting):\n    {serve}\n"
        f"daemon.serve = serve\nsys.argv = ['daemon', {mountpoint!r}]\ndaemon.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        input=launching._encode(settings or Settings()),
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_the_ready_line_is_one_line_of_json() -> None:
    done = be_the_daemon("ready('/mnt/gr\\u00f6\\u00dfe\\n: ready')")
    assert done.stdout.endswith(b"\n")
    assert done.stdout.count(b"\n") == 1
    assert json.loads(done.stdout) == {"message": "/mnt/größe\n: ready"}
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_said_while_it_takes_long_are_lines_before() -> None:
    done = be_the_daemon("waiting('making a table'); ready('/mnt: ready')")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [{"waiting": "making a table"}, {"message": "/mnt: ready"}]
    assert (done.returncode, done.stderr) == (0, b"")


def test_only_the_first_word_is_said_and_what_is_printed_later_goes_nowhere() -> None:
    done = be_the_daemon(
        "ready('one'); ready('two'); import os; os.write(1, b'noise'); os.system('echo noise')"
    )
    assert json.loads(done.stdout) == {"message": "one"}
    assert done.returncode == 0


@pytest.mark.parametrize("kind", [TciafsError, Misuse, Unusable, AccessDenied])
def test_an_error_is_said_logged_and_in_the_exit_code(kind: type[TciafsError]) -> None:
    done = be_the_daemon(f"raise {kind.__name__}('the reason')")
    assert json.loads(done.stdout) == {"error": kind.__name__, "message": "the reason"}
    assert done.returncode == kind.exit_code
    assert b"ERROR tciafs: the reason\n" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_error_after_it_was_ready_is_logged_and_breaks_nothing() -> None:
    done = be_the_daemon("ready('one'); raise Unusable('it went away')")
    assert json.loads(done.stdout) == {"message": "one"}
    assert done.returncode == 3
    assert b"ERROR tciafs: it went away\n" in done.stderr


def test_a_surprise_is_logged_with_its_traceback_and_not_said() -> None:
    done = be_the_daemon("raise KeyError('surprise')")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert b"the mount ended in an unexpected way\nTraceback" in done.stderr


def test_a_daemon_whose_starter_was_killed_serves_all_the_same() -> None:
    program = (
        "import sys, os, tciafs.daemon as daemon\n"
        "daemon.serve = lambda settings, mountpoint, ready, waiting: (ready('x'), os.write(2, b'served'))\n"
        "sys.argv = ['daemon', '/mnt']\ndaemon.main()"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=launching._encode(Settings()),
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (done.stderr, done.returncode) == (b"served", 0)


def test_the_log_level_is_that_of_the_settings_for_us_and_warning_for_libraries() -> None:
    serve = (
        "logging.getLogger('tciafs.x').info('ours'); logging.getLogger('tciafs.x').debug('too much');"
        " logging.getLogger('httpx').info('theirs'); logging.getLogger('httpx').warning('their warning');"
        " logging.getLogger('stamina').warning('a retry')"
    )
    done = be_the_daemon(serve, Settings(log_level="info"))
    lines = [line.split(b" ", 2)[2] for line in done.stderr.splitlines()]
    assert lines == [b"INFO tciafs.x: ours", b"WARNING httpx: their warning"]


def test_the_mistake_inside_nested_groups_is_what_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from tciafs.filesystem import mount

    async def run_mount(*_: object) -> None:
        raise ExceptionGroup("a", [ValueError(1), ExceptionGroup("b", [Unusable("the mistake")])])

    monkeypatch.setattr(mount, "run_mount", run_mount)
    with pytest.raises(Unusable, match="the mistake"):
        daemon.serve(Settings(), Path("/mnt"), print, print)


def test_the_collector_need_not_look_through_what_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from tciafs.filesystem import mount

    async def run_mount(*_: object) -> None:
        assert gc.get_freeze_count() > 10_000

    monkeypatch.setattr(mount, "run_mount", run_mount)
    daemon.serve(Settings(), Path("/mnt"), print, print)


def test_the_mount_is_given_a_worker_that_is_gone_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tciafs.filesystem import mount

    given: list[subprocess.Popen[bytes]] = []

    async def run_mount(*handed: object) -> None:
        worker = handed[-1]
        assert isinstance(worker, subprocess.Popen)
        assert worker.poll() is None
        given.append(worker)

    monkeypatch.setattr(mount, "run_mount", run_mount)
    daemon.serve(Settings(), Path("/mnt"), print, print)
    assert [worker.returncode for worker in given] == [-signal.SIGKILL]


def test_a_group_without_a_mistake_of_the_users_comes_out_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from tciafs.filesystem import mount

    async def run_mount(*_: object) -> None:
        raise ExceptionGroup("a", [ValueError(1)])

    monkeypatch.setattr(mount, "run_mount", run_mount)
    with pytest.raises(ExceptionGroup, match="a"):
        daemon.serve(Settings(), Path("/mnt"), print, print)


# In the foreground


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Mounts become ready at once and end."""
    mounted: list[Path] = []

    def serve(_settings: Settings, mountpoint: Path, ready: Callable[[str], None], *_others: object) -> None:
        mounted.append(mountpoint)
        ready(f"{mountpoint}: ready")

    monkeypatch.setattr(daemon, "serve", serve)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    return mounted


@pytest.mark.usefixtures("quiet_logging")
def test_in_the_foreground_the_message_is_on_stdout(
    served: list[Path], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    launching.run_in_foreground(Settings(), Path("/mnt/\udcff"))
    assert capfdbinary.readouterr().out == b"/mnt/\xff: ready\n"


@pytest.mark.usefixtures("quiet_logging", "served")
def test_in_the_foreground_the_log_is_where_it_is_wanted(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("something is odd")
    log = tmp_path / "logs" / "log"
    launching.run_in_foreground(Settings(log_file=log), Path("/mnt"))
    logging.getLogger("tciafs.x").warning("something is odd: \udcff")
    assert "WARNING tciafs.x: something is odd: \\udcff\n" in log.read_text()
    with pytest.raises(Unusable, match="cannot be written"):
        launching.run_in_foreground(Settings(log_file=tmp_path), Path("/mnt"))


@pytest.mark.usefixtures("quiet_logging", "served")
@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told_when_the_mount_is_ready(
    is_abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"@tciafs-test-{os.getpid()}-{threading.get_native_id()}" if is_abstract else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0", 1))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        launching.run_in_foreground(Settings(), Path("/mnt/a\nREADY=0"))
        assert systemd.recv(1000) == b"READY=1\nSTATUS=/mnt/a READY=0: ready"


@pytest.mark.usefixtures("quiet_logging")
@pytest.mark.parametrize("name", ["nobody-listens", "x" * 200])
def test_a_systemd_that_cannot_be_told_ends_no_mount(
    name: str,
    served: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("systemd could not be told: ")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))
    launching.run_in_foreground(Settings(), Path("/mnt"))
    assert served == [Path("/mnt")]


# The real daemon


def test_a_cache_folder_that_cannot_be_used_is_the_answer_of_the_real_daemon(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = settings_in(tmp_path, cache_dir=tmp_path / "file")
    with pytest.raises(Unusable, match=r"the cache folder .*/file cannot be used"):
        launching.start(settings, tmp_path)
    assert "ERROR tciafs: the cache folder" in (tmp_path / "logs" / "log").read_text()


def test_an_address_that_cannot_work_is_the_answer_of_the_real_daemon(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, cache_dir=tmp_path / "cache", url="not an address")
    with pytest.raises(Misuse, match="not an address"):
        launching.start(settings, tmp_path)
