"""Where a user's login is kept: the desktop's keyring, else a file that nobody else can read.

The file says whose login the keyring has. Who is not in it is a guest, and need not wait for the keyring,
which takes a tenth of a second to be found, nor for a user to unlock it.

Also found here: a password that a file or systemd hands to a daemon (TCIAFS_PASSWORD_FILE, LoadCredential).
What `tciafs login` keeps is a refresh token and never a password. Defined here and only here: names,
places and modes. Calls block, those to a keyring for as long as its user takes to unlock it.
"""

import logging
import os
import shlex
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from tciafs.archives.nbia.login import Login, Secret
from tciafs.errors import Misuse, TciafsError

__all__ = ["LoginStore", "login_for", "password_from"]

log = logging.getLogger(__name__)

SERVICE = "tciafs"
SYSTEMD_NAME = "tciafs-password"
MOST_BYTES = 64 * 1024


class _Kept(msgspec.Struct):
    """What is kept for one server, as JSON. Without a token, in the file: the keyring has it."""

    user: str
    refresh_token: str | None

    def __repr__(self) -> str:
        return f"_Kept({self.user!r})"


class LoginStore:
    """The login kept for each server, by its address.

    `find_keyring` returns the module keyring or what does the same, None where there is none; it is called
    once, when a login may be there. `file` holds what a keyring does not, and which logins a keyring has.
    """

    def __init__(
        self, file: Path | None = None, find_keyring: Callable[[], Any | None] = lambda: None
    ) -> None:
        self._file = file or platformdirs.user_data_path("tciafs") / "logins.json"
        self._find_keyring = find_keyring

    @classmethod
    def of_user(cls) -> "LoginStore":
        """Return the store of this user, with the keyring of the desktop if one can be reached."""
        return cls(find_keyring=_working_keyring)

    @cached_property
    def _keyring(self) -> Any | None:
        return self._find_keyring()

    def find(self, server: str) -> Login | None:
        """Return the login kept for a server, None if there is none, or in a keyring that does not give it.

        Raises Misuse where the file that has it may be read by others.
        """
        kept = self._in_file().get(server)
        if kept is not None and kept.refresh_token is None:
            user, kept = kept.user, self._in_keyring(server)
            if kept is None:
                # A home folder on two machines, a desktop that is locked, a keyring that somebody cleared.
                log.warning("the keyring does not give the login of %s here; run: tciafs login", user)
        if kept is None or kept.refresh_token is None:
            return None
        return Login(kept.user, refresh_token=Secret(kept.refresh_token))

    def keep(self, server: str, login: Login) -> str:
        """Keep the refresh token of a login, and return where: "the keyring", or the path of a file.

        Raises TciafsError where neither takes it, or the file not that the keyring has it.
        """
        assert login.refresh_token is not None
        kept = _Kept(login.user, login.refresh_token.text)
        is_in_keyring = self._give_keyring(server, kept)
        logins = self._in_file()
        noted = _Kept(login.user, None) if is_in_keyring else kept
        if logins.get(server) != noted:
            self._write(logins | {server: noted})
        return "the keyring" if is_in_keyring else str(self._file)

    def drop(self, server: str) -> bool:
        """Forget the login of a server, in the keyring too where nothing says that it has one.

        Return whether there was one.
        """
        found = False
        if self._in_keyring(server) is not None:
            assert self._keyring is not None
            self._keyring.delete_password(SERVICE, server)
            found = True
        logins = self._in_file()
        if server in logins:
            del logins[server]
            self._write(logins)
            found = True
        return found

    def _give_keyring(self, server: str, kept: _Kept) -> bool:
        """Return whether there is a keyring that takes it."""
        if self._keyring is None:
            return False
        try:
            self._keyring.set_password(SERVICE, server, msgspec.json.encode(kept).decode())
        except Exception as error:  # each desktop's keyring has errors of its own
            log.info("the keyring takes no login: %s", type(error).__name__)
            return False
        return True

    def _in_keyring(self, server: str) -> _Kept | None:
        if self._keyring is None:
            return None
        try:
            text = self._keyring.get_password(SERVICE, server)
            return None if text is None else msgspec.json.decode(text, type=_Kept)
        except Exception as error:  # as above; and what is there may be of another version
            log.info("the keyring gives no login: %s", type(error).__name__)
            return None

    def _in_file(self) -> dict[str, _Kept]:
        try:
            data = _read_private(self._file)
            return msgspec.json.decode(data, type=dict[str, _Kept])
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Misuse(f"{self._file} cannot be read: {error.strerror}") from error
        except ValueError:
            log.warning("%s is not what tciafs login writes, and is ignored", self._file)
            return {}

    def _write(self, logins: dict[str, _Kept]) -> None:
        """Replace the file; without any login in it there is none."""
        try:
            if not logins:
                self._file.unlink(missing_ok=True)
                return
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes it with mode 0600, whatever the umask.
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=".logins-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(logins))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._file)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise TciafsError(f"the login cannot be kept in {self._file}: {error.strerror}") from error


def login_for(server: str, user: str | None, password_file: Path | None, store: LoginStore) -> Login | None:
    """Return the login to use at a server, None to be a guest: a password given, else the login kept.

    Raises Misuse where the user is not who is logged in, or a file may be read by others.
    """
    password = password_from(password_file)
    if password is not None:
        if user is None:
            raise Misuse("a password needs a user: set --user")
        return Login(user, password)
    kept = store.find(server)
    if kept is not None and user in (None, kept.user):
        return kept
    if user is None:
        return None
    other = f"{kept.user} is" if kept is not None else "nobody is"
    raise Misuse(f"{other} logged in, not {user}; run: tciafs login --user {shlex.quote(user)}")


def password_from(file: Path | None) -> Secret | None:
    """Return the password that a file holds in its first line, None if no file is named.

    `file` None means the credential `tciafs-password` of systemd.exec(5), if there is one. Raises Misuse
    for a file that is not there, or that others can read, and for credentials of another user's service.
    """
    if file is not None:
        try:
            return _password_in(file, _read_private(file))
        except OSError as error:
            raise Misuse(f"the password file {file} cannot be read: {error.strerror}") from error
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return _password_of_service(Path(folder) / SYSTEMD_NAME) if folder else None


def _password_of_service(file: Path) -> Secret | None:
    """Return the password that systemd hands to a service, None if it hands over none."""
    try:
        # A service's user may read it by an ACL, whose mask looks like the mode of the group.
        return _password_in(file, _read_private(file, group_may_read=True))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise Misuse(
            f"the password that systemd hands over in {file.parent} is for another user; run tciafs as the "
            "User= of that service, or unset CREDENTIALS_DIRECTORY"
        ) from error
    except OSError as error:
        raise Misuse(f"the password file {file} cannot be read: {error.strerror}") from error


def _password_in(file: Path, data: bytes) -> Secret:
    try:
        text = data.decode()
    except UnicodeError:
        raise Misuse(f"the password file {file} holds no text") from None
    password = text.partition("\n")[0].removesuffix("\r")
    if not password:
        raise Misuse(f"the password file {file} is empty")
    return Secret(password)


def _read_private(file: Path, *, group_may_read: bool = False) -> bytes:
    """Return the bytes of a file that nobody else can read. Raises Misuse where others can, OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Misuse(f"{file} is not a file")
        others = 0o037 if group_may_read else 0o077
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & others:
            quoted = shlex.quote(str(file))
            raise Misuse(f"{file} can be read by others, so it is not used; chmod 600 {quoted}")
        return opened.read(MOST_BYTES)


def _working_keyring() -> Any | None:
    """Return the module keyring where it is installed and has a place that is safe, else None."""
    try:
        import keyring
        from keyring.backends import fail, null

        backend = keyring.get_keyring()
    except Exception as error:  # what a desktop's libraries raise while they are looked for
        log.debug("no keyring: %r", error)
        return None
    return None if isinstance(backend, fail.Keyring | null.Keyring) else keyring
