"""Where the control socket of a mount is: a folder that is private to the user, a name from the mount point.

Both ends look here. Only who owns the folder gets to the socket, and only who owns it can put one there, so
that neither end need ask who the other is. Defined here and only here: folder, name and modes. Blocks
for a moment, on local folders only; imports nothing heavy, since commands wait for it.
"""

import errno
import hashlib
import logging
import os
import select
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Daemon", "clear", "daemon_at", "listening", "sockets"]

log = logging.getLogger(__name__)

TEMPORARY = Path("/tmp")
"""Not $TMPDIR, which may be another one for the command than it was for the daemon."""

RUNTIME = Path("/run/user")
RUNTIME_OF_SERVICES = Path("/run")
"""Where systemd makes RuntimeDirectory=tciafs, and says so to the service alone: its user has no session."""

LONGEST_ADDRESS_BYTES = 107
"""sun_path of unix(7), less its final NUL."""

CREDENTIALS = struct.Struct("iII")
"""ucred of unix(7): process, user, group."""

PIDFD_OPEN = 434
"""The number of the system call, which is the same on all machines but Alphas."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """The process behind a mount; it is held, so that no other is meant should its number pass on."""

    pid: int
    _pidfd: int = field(repr=False)

    def has_ended(self, timeout_s: float) -> bool:
        """Return whether the process has ended, once it has or the time is over."""
        ends = select.poll()
        ends.register(self._pidfd, select.POLLIN)
        return bool(ends.poll(timeout_s * 1000))


def sockets(mountpoint: Path) -> list[Path]:
    """Return where the socket of a mount may be, the likeliest first; a daemon that was killed leaves it."""
    name = _name(mountpoint)
    folders = [*_folders(), RUNTIME_OF_SERVICES / "tciafs"]
    return [folder / name for folder in folders if not _objection(folder) and (folder / name).is_socket()]


@contextmanager
def listening(mountpoint: Path) -> Iterator[socket.socket | None]:
    """Listen at the place of a mount point for the length of the block, as nobody but its user can.

    What a dead daemon left there is replaced. None, and a warning in the log, where it does not work: a mount
    is of use without. The descriptor may be given away by `detach`.
    """
    try:
        listener, path = _listen(mountpoint)
    except OSError as error:
        log.warning("commands will not reach this mount: %s", error)
        yield None
        return
    identity = _identity(path)
    try:
        with listener:
            yield listener
    finally:
        # The next mount here may have put its own in this place already.
        if identity is not None and _identity(path) == identity:
            with suppress(OSError):
                path.unlink()


@contextmanager
def daemon_at(mountpoint: Path) -> Iterator[Daemon | None]:
    """Hold the daemon of a mount for the length of the block, be it frozen; None if there is none to be seen.

    That is: one of this user that lives, and has a socket. Before Linux 5.3 and in a process namespace that
    is not the daemon's no process can be held, so that it is None, too.
    """
    daemon = _daemon_at(mountpoint)
    try:
        yield daemon
    finally:
        if daemon is not None:
            os.close(daemon._pidfd)


def clear(mountpoint: Path) -> None:
    """Remove what a daemon that was killed has left at the place of a mount point; a live one's stays."""
    for path in sockets(mountpoint):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.setblocking(False)
            try:
                caller.connect(os.fsencode(path))
            except ConnectionRefusedError:
                with suppress(OSError):
                    path.unlink()
            except OSError:
                pass


def _daemon_at(mountpoint: Path) -> Daemon | None:
    # A daemon may outlive its mount, and be followed by one that has its socket in another folder.
    latest = max(sockets(mountpoint), key=_made_ns, default=None)
    if latest is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # the queue of a frozen daemon may be full
        try:
            caller.connect(os.fsencode(latest))
            answer = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            pid: int = CREDENTIALS.unpack(answer)[0]
            pidfd = _pidfd_of(pid)
        except OSError:
            return None
        if _hung_up(caller):  # the number may be another process's by now
            os.close(pidfd)
            return None
    return Daemon(pid, pidfd)


def _pidfd_of(pid: int) -> int:
    """Return a descriptor that holds a process. Raises OSError."""
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    # Conda's Python lacks it, and uv's did until 2026: their headers are older than the kernels they run on.
    import ctypes

    pidfd: int = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_OPEN, pid, 0)
    if pidfd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pidfd


def _hung_up(caller: socket.socket) -> bool:
    """Return whether nobody is at the other end any more; who is there says nothing before he is asked."""
    try:
        return not caller.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _made_ns(path: Path) -> int:
    """Return when a file was made that is never written to, in ns; 0 if it is gone."""
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def _listen(mountpoint: Path) -> tuple[socket.socket, Path]:
    """Return a socket that listens, and where. Raises OSError."""
    complaint = OSError("there is no folder for its socket")
    for folder in _folders():
        path = folder / _name(mountpoint)
        try:
            _make_private(folder)
            return _listen_at(path), path
        except OSError as error:
            complaint = error
    raise complaint


def _listen_at(path: Path) -> socket.socket:
    address = os.fsencode(path)
    if len(address) > LONGEST_ADDRESS_BYTES:
        raise OSError(errno.ENAMETOOLONG, "the path of the control socket is too long", str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux makes the file with the mode of the socket; a umask would be that of all threads meanwhile.
        os.fchmod(listener.fileno(), 0o600)
        path.unlink(missing_ok=True)
        listener.bind(address)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _folders() -> Iterator[Path]:
    """Yield the folders to look in, the best first.

    A session's runtime folder comes and goes with it and with its environment, so a command has to look for
    what a daemon of another session has made.
    """
    # Not platformdirs, which warns on the terminal where $XDG_RUNTIME_DIR is not set, and then asks $TMPDIR.
    uid = os.geteuid()
    of_session = os.environ.get("XDG_RUNTIME_DIR", "")
    parents = [Path(of_session)] if of_session.startswith("/") else []
    if (standard := RUNTIME / str(uid)) not in parents:
        parents.append(standard)
    yield from (parent / "tciafs" for parent in parents)
    yield TEMPORARY / f"tciafs-{uid}"


def _make_private(folder: Path) -> None:
    """Make sure of a folder that nobody else can enter or change. Raises OSError."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if objection := _objection(folder):
        raise PermissionError(errno.EPERM, objection, str(folder))


def _objection(folder: Path) -> str:
    """Return why a folder cannot be trusted, "" if it can."""
    try:
        status, around = folder.lstat(), folder.parent.stat()
    except OSError as error:
        return str(error.strerror)
    uid = os.geteuid()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077:
        return "not a folder of this user alone"
    if around.st_uid not in (0, uid) or (around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX):
        return "others could put another folder in its place"
    return ""


def _name(mountpoint: Path) -> str:
    return hashlib.blake2b(os.fsencode(mountpoint), digest_size=10).hexdigest() + ".sock"


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name, None if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
