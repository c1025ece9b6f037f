"""Where a login is kept: in a keyring or a private file, never where others can read it, never shown."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail

from tciafs import credentials
from tciafs.archives.nbia.login import Login, Secret
from tciafs.credentials import LoginStore, login_for, password_from
from tciafs.errors import Misuse, TciafsError

SERVER = "https://archive.example/nbia-api/oauth/token"
NOBODY = 65534
ADA = Login("ada", refresh_token=Secret("t0ken"))


class Desktop(KeyringBackend):
    """A keyring in memory; `locked` as one whose user has said no."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        del self.kept[service, username]

    def _check(self) -> None:
        if self.locked:
            raise RuntimeError("locked")


@pytest.fixture
def desktop(monkeypatch: pytest.MonkeyPatch) -> Desktop:
    desktop = Desktop()
    monkeypatch.setattr(keyring, "get_keyring", lambda: desktop)
    for name in ("get_password", "set_password", "delete_password"):
        monkeypatch.setattr(keyring, name, getattr(desktop, name))
    return desktop


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tciafs" / "logins.json"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_without_a_keyring_it_is_in_a_file_of_its_user_alone(file: Path, umask: int) -> None:
    store = LoginStore(file)
    before = os.umask(umask)
    try:
        where = store.keep(SERVER, ADA)
    finally:
        os.umask(before)
    assert where == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["logins.json"]
    assert LoginStore(file).find(SERVER) == ADA
    assert LoginStore(file).find("https://other.example/oauth/token") is None


def test_each_server_has_its_own(file: Path) -> None:
    store, bob = LoginStore(file), Login("bob", refresh_token=Secret("another"))
    store.keep(SERVER, ADA)
    store.keep("https://other.example/oauth/token", bob)
    assert (store.find(SERVER), store.find("https://other.example/oauth/token")) == (ADA, bob)
    assert store.drop(SERVER)
    assert not store.drop(SERVER)
    assert (store.find(SERVER), store.find("https://other.example/oauth/token")) == (None, bob)
    assert store.drop("https://other.example/oauth/token")
    assert not file.exists()


def test_with_a_keyring_the_token_is_there_and_not_in_the_file(file: Path, desktop: Desktop) -> None:
    LoginStore(file).keep(SERVER, ADA)
    store = LoginStore(file, lambda: keyring)
    assert store.keep(SERVER, ADA) == "the keyring"
    assert json.loads(file.read_bytes()) == {SERVER: {"user": "ada", "refresh_token": None}}
    assert store.find(SERVER) == LoginStore(file, lambda: keyring).find(SERVER) == ADA
    assert store.drop(SERVER)
    assert desktop.kept == {}
    assert not file.exists()


def test_the_file_is_not_written_again_for_a_token_that_the_keyring_takes(
    file: Path, desktop: Desktop
) -> None:
    store = LoginStore(file, lambda: keyring)
    store.keep(SERVER, ADA)
    before = file.stat()
    store.keep(SERVER, replace(ADA, refresh_token=Secret("renewed")))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert store.find(SERVER) == replace(ADA, refresh_token=Secret("renewed"))


@pytest.mark.parametrize("kept", ["nowhere", "for another server", "in the file"])
def test_a_keyring_is_looked_for_only_where_a_login_is_said_to_be_in_it(file: Path, kept: str) -> None:
    def find_keyring() -> None:
        pytest.fail("the keyring was looked for")

    if kept != "nowhere":
        LoginStore(file).keep(SERVER if kept == "in the file" else "https://other.example/token", ADA)
    assert LoginStore(file, find_keyring).find(SERVER) == (ADA if kept == "in the file" else None)


def test_a_guest_does_not_wait_for_the_import_of_keyring(tmp_path: Path) -> None:
    script = (
        "import sys; from tciafs.credentials import LoginStore\n"
        "assert LoginStore.of_user().find('https://archive.example/token') is None\n"
        "assert 'keyring' not in sys.modules"
    )
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.expect_log("the keyring does not give the login of ada here; run: tciafs login")
@pytest.mark.parametrize("keyring_is", ["absent", "locked", "empty"])
def test_a_login_in_a_keyring_that_does_not_give_it_leaves_a_guest(
    file: Path, desktop: Desktop, keyring_is: str
) -> None:
    LoginStore(file, lambda: keyring).keep(SERVER, ADA)
    desktop.locked = keyring_is == "locked"
    if keyring_is == "empty":
        desktop.kept.clear()
    store = LoginStore(file, lambda: None if keyring_is == "absent" else keyring)
    assert login_for(SERVER, None, None, store) is None
    with pytest.raises(Misuse, match="nobody is logged in, not ada; run: tciafs login --user ada"):
        login_for(SERVER, "ada", None, store)
    assert store.drop(SERVER)
    assert not file.exists()


def test_to_log_out_looks_into_the_keyring_whatever_the_file_says(file: Path, desktop: Desktop) -> None:
    LoginStore(file, lambda: keyring).keep(SERVER, ADA)
    file.unlink()
    store = LoginStore(file, lambda: keyring)
    assert store.find(SERVER) is None
    assert store.drop(SERVER)
    assert desktop.kept == {}
    assert not store.drop(SERVER)


def test_where_the_keyring_is_locked_the_file_serves(file: Path, desktop: Desktop) -> None:
    desktop.locked = True
    store = LoginStore(file, lambda: keyring)
    assert store.keep(SERVER, ADA) == str(file)
    assert store.find(SERVER) == ADA
    assert store.drop(SERVER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(file: Path, mode: int) -> None:
    store = LoginStore(file)
    store.keep(SERVER, ADA)
    file.chmod(mode)
    with pytest.raises(Misuse, match=f"can be read by others, so it is not used; chmod 600 {file}"):
        store.find(SERVER)


@pytest.mark.expect_log("is not what tciafs login writes, and is ignored")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"user": "x"}}', "\udcff"])
def test_a_file_that_is_none_of_ours_is_as_if_nobody_was_logged_in(file: Path, text: str) -> None:
    store = LoginStore(file)
    store.keep(SERVER, ADA)
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert store.find(SERVER) is None


def test_a_folder_that_takes_no_file_is_an_error_that_shows_no_secret(tmp_path: Path) -> None:
    tmp_path.joinpath("data").touch()
    with pytest.raises(TciafsError, match=r"cannot be (kept in|read)") as caught:
        LoginStore(tmp_path / "data" / "logins.json").keep(SERVER, ADA)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize("backend", ["fails", "raises", "works"])
def test_a_keyring_that_does_not_work_is_none(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_keyring() -> Any:
        if backend == "raises":
            raise RuntimeError("no D-Bus")
        return Desktop() if backend == "works" else fail.Keyring()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(keyring, "get_keyring", get_keyring)
    found = credentials._working_keyring()
    assert isinstance(found, ModuleType) if backend == "works" else found is None


# Passwords for servers


def password_file(path: Path, text: str = "pa55word\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", ["pa55word", "pa55word\n", "pa55word\r\n", "pa55word\nand more"])
def test_the_password_is_the_first_line_of_a_file(tmp_path: Path, text: str) -> None:
    assert password_from(password_file(tmp_path / "password", text)) == Secret("pa55word")


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        ("pa55word", 0o644, "can be read by others"),
        ("pa55word", 0o640, "can be read by others"),
        ("", 0o600, "is empty"),
        ("\n", 0o600, "is empty"),
        ("\udcff", 0o600, "holds no text"),
    ],
)
def test_a_password_file_that_is_not_right_is_misuse(
    tmp_path: Path, text: str, mode: int, sentence: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.chmod(mode)
    with pytest.raises(Misuse, match=sentence) as caught:
        password_from(path)
    assert "pa55word" not in str(caught.value)


def test_a_password_file_that_is_not_there_or_no_file_is_misuse(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
        with pytest.raises(Misuse):
            password_from(path)


def test_systemd_hands_a_password_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert password_from(None) is None
    password_file(tmp_path / "tciafs-password", mode=0o440)
    assert password_from(None) == Secret("pa55word")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Be somebody whom permissions stop for the length of the block."""
    me = os.geteuid()
    os.seteuid(NOBODY if me == 0 else me)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_credentials_of_another_user_are_misuse_with_the_remedy(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path = password_file(tmp_path / "tciafs-password")
    (tmp_path if closed == "folder" else path).chmod(0)
    with ordinary_user(), pytest.raises(Misuse) as caught:
        password_from(None)
    tmp_path.chmod(0o700)
    assert str(caught.value) == (
        f"the password that systemd hands over in {tmp_path} is for another user; run tciafs as the User= of "
        "that service, or unset CREDENTIALS_DIRECTORY"
    )


# Which login it is


def test_a_password_goes_before_what_is_kept(file: Path, tmp_path: Path) -> None:
    store = LoginStore(file)
    store.keep(SERVER, ADA)
    password = password_file(tmp_path / "password")
    assert login_for(SERVER, "bob", password, store) == Login("bob", password=Secret("pa55word"))
    with pytest.raises(Misuse, match="a password needs a user: set --user"):
        login_for(SERVER, None, password, store)


def test_without_one_it_is_who_is_logged_in_or_a_guest(file: Path) -> None:
    store = LoginStore(file)
    assert login_for(SERVER, None, None, store) is None
    with pytest.raises(Misuse, match="nobody is logged in, not ada; run: tciafs login --user ada"):
        login_for(SERVER, "ada", None, store)
    store.keep(SERVER, ADA)
    assert login_for(SERVER, None, None, store) == login_for(SERVER, "ada", None, store) == ADA
    with pytest.raises(Misuse, match="ada is logged in, not bob"):
        login_for(SERVER, "bob", None, store)
