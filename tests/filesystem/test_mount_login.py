"""Logging in, on a real mount: what only some may see is there for them and nobody else; nothing leaks."""

import os
import pty
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting import PROGRAM, Mount, marked_environment, mounted, program
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

COLLECTION = "Limited-Access"
PASSWORD = "pa55-word"
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSample]:
    with running_sample("--login", f"ada:{PASSWORD}") as sample:
        yield sample


@pytest.fixture
def sample(running: RunningSample) -> Iterator[RunningSample]:
    yield running
    running.clear_faults()


@pytest.fixture(autouse=True)
def _data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(PASSWORD)
    return path


def first_image(mount: Mount) -> bytes:
    return next((mount.path / COLLECTION).rglob("*.dcm")).read_bytes()


def log_in(url: str, password: str) -> tuple[int, str]:
    """Type a password as a person does; return the exit code, and all that the terminal showed."""
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "login", "--url", url, "--user", "ada"]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=marked_environment("login"),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while b"Password: " not in shown:
                shown += _read(ours)
            os.write(ours, password.encode() + b"\n")
            while more := _read(ours):
                shown += more
        finally:
            os.close(ours)
        return process.wait(PATIENCE_S), shown.decode()


def _read(terminal: int) -> bytes:
    """Return what comes next, nothing at the end."""
    assert select.select([terminal], [], [], PATIENCE_S)[0], "the terminal stayed silent"
    try:
        return os.read(terminal, 4096)
    except OSError:  # EIO: the other side is closed
        return b""


def test_a_guest_does_not_see_what_is_restricted(sample: RunningSample) -> None:
    with mounted(sample.url) as mount:
        assert COLLECTION not in os.listdir(mount.path)
        assert ", as " not in mount.message


def test_after_a_login_it_is_there_and_can_be_read(sample: RunningSample, tmp_path: Path) -> None:
    code, shown = log_in(sample.url, PASSWORD)
    kept_in = tmp_path / "data" / "tciafs" / "logins.json"
    assert code == 0, shown
    assert f"logged in as ada; the token is kept in {kept_in}" in shown.replace("\r\n", "\n")
    assert PASSWORD not in shown
    assert PASSWORD not in kept_in.read_text()
    with mounted(sample.url) as mount:
        assert ", as ada" in mount.message
        assert COLLECTION in os.listdir(mount.path)
        assert first_image(mount)[128:132] == b"DICM"
        assert "  login      ada\n" in program("status", mount.path).stdout
    assert program("logout", "--url", sample.url).stdout == "logged out\n"
    assert program("logout", "--url", sample.url).stdout == "nobody was logged in\n"
    assert not kept_in.exists()


def test_a_wrong_password_is_refused_with_exit_code_4(sample: RunningSample, tmp_path: Path) -> None:
    code, shown = log_in(sample.url, "wrong")
    assert (code, "refused the login" in shown) == (4, True)
    assert not (tmp_path / "data").exists()


def test_without_a_terminal_login_says_what_to_do(sample: RunningSample) -> None:
    done = program("login", "--url", sample.url)
    assert done.returncode == 2
    assert "mount with --password-file" in done.stderr


def test_a_server_has_its_password_in_a_file(sample: RunningSample, password_file: Path) -> None:
    with mounted(sample.url, "--user", "ada", "--password-file", password_file) as mount:
        assert first_image(mount)[128:132] == b"DICM"
        assert PASSWORD not in mount.log()
        assert PASSWORD not in Path(f"/proc/{mount.pid}/cmdline").read_text()
        cached = [path.read_bytes() for path in mount.cache.rglob("*") if path.is_file()]
        assert cached
        assert not [data for data in cached if PASSWORD.encode() in data or b"sample-access" in data]


def test_a_token_that_ends_in_mid_work_is_renewed_for_all(sample: RunningSample, password_file: Path) -> None:
    with mounted(sample.url, "--user", "ada", "--password-file", password_file) as mount:
        patients = os.listdir(mount.path / COLLECTION)
        sample.expire_tokens()
        sample.forget_requests()
        assert patients
        assert first_image(mount)[128:132] == b"DICM"
        assert sample.tally()["token"] == 1


def test_a_login_that_is_refused_leaves_what_is_public(sample: RunningSample, password_file: Path) -> None:
    password_file.write_text("wrong")
    with mounted(sample.url, "--user", "ada", "--password-file", password_file) as mount:
        assert "as a guest (127.0.0.1 refused the login (status 401))" in mount.message
        assert "Phantom-Head" in os.listdir(mount.path)
        assert COLLECTION not in os.listdir(mount.path)
        assert "refused the login (status 401), so as a guest" in program("status", mount.path).stdout
        assert "wrong" not in mount.log()


def test_listings_of_one_user_are_not_shown_to_another(
    sample: RunningSample, password_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mount"
    with mounted(sample.url, "--user", "ada", "--password-file", password_file, folder=folder) as mount:
        assert COLLECTION in os.listdir(mount.path)
    with mounted(sample.url, folder=folder) as mount:
        assert COLLECTION not in os.listdir(mount.path)


def test_an_older_server_is_asked_by_the_version_that_looks_at_tokens(password_file: Path) -> None:
    with (
        running_sample("--login", f"ada:{PASSWORD}", "--api", "v1") as old,
        mounted(old.url, "--user", "ada", "--password-file", password_file) as mount,
    ):
        assert first_image(mount)[128:132] == b"DICM"
        assert COLLECTION in os.listdir(mount.path)


def test_a_password_file_that_others_can_read_is_refused(password_file: Path, tmp_path: Path) -> None:
    password_file.chmod(0o644)
    (tmp_path / "mnt").mkdir()
    options = ("--user", "ada", "--password-file", password_file, "--agree-to-policy")
    done = program(*options, tmp_path / "mnt")
    assert (done.returncode, "can be read by others" in done.stderr) == (2, True)
