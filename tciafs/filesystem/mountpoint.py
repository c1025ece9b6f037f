"""Whether a folder can be mounted on, what is mounted where, and how to unmount.

Reads /proc/self/mountinfo rather than touching mounts, since a frozen one would block for ever; where
only touching tells, a process that may be left behind does it. Called by commands before and after a
mount lives, never by the daemon on its own mount.
"""

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tciafs.errors import Misuse, Unusable

__all__ = [
    "FUSE_TYPE",
    "Mounted",
    "Ours",
    "all_of_ours",
    "clear_dead_mount",
    "is_automount",
    "is_dead",
    "mounted_at",
    "ours_around",
    "place_of",
    "prepare",
    "remains",
    "require_fuse",
    "unmount",
]

FUSE_TYPE = "fuse.tciafs"
AUTOMOUNT_TYPE = "autofs"
"""Mounted on when somebody looks into it: who mounts there would wait for himself if he looked."""

FUSE_DEVICE = Path("/dev/fuse")
MOUNTINFO = Path("/proc/self/mountinfo")
HELPER_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 5.0
"""A mount that is alive answers at once how full its cache is."""

KILLED_TIMEOUT_S = 1.0
MOST_LINKS = 40
"""As many symbolic links in a row as the kernel follows."""

# Unlike those of a stat, the answers of a statvfs are never the kernel's own memory.
STATVFS_ERRNO = """
import os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount: its file system type, and the device number that stat gives for what is on it."""

    type: str
    device: int


@dataclass(frozen=True, slots=True)
class Ours:
    """A mount of tciafs: where it is, and the user who mounted it, the only one its daemon listens to."""

    path: Path
    owner_uid: int


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of mountinfo; `owner_uid` is -1 where the file system has none. See proc(5)."""

    place: bytes
    mounted: Mounted
    owner_uid: int


def prepare(mountpoint: Path) -> Path:
    """Return the absolute path of a folder that can be mounted on; a dead mount there is cleared first.

    Raises Unusable with what is wrong and what to do.
    """
    require_fuse()
    mountpoint = place_of(mountpoint)
    clear_dead_mount(mountpoint)
    quoted = shlex.quote(str(mountpoint))
    mounted = mounted_at(mountpoint)
    if mounted is not None and mounted.type == FUSE_TYPE:
        raise Unusable(f"{mountpoint} already has tciafs mounted; see tciafs umount {quoted}")
    if mounted is not None and mounted.type.startswith("fuse"):
        raise Unusable(f"{mountpoint} already has something mounted ({mounted.type})")
    if is_automount(mountpoint):
        return mountpoint
    try:
        occupied = any(mountpoint.iterdir())
    except FileNotFoundError:
        raise Unusable(f"{mountpoint} does not exist; make it with: mkdir -p {quoted}") from None
    except NotADirectoryError:
        raise Unusable(f"{mountpoint} is not a folder") from None
    except OSError as error:
        raise Unusable(f"{mountpoint} cannot be used: {error.strerror}") from error
    if occupied:
        raise Unusable(f"{mountpoint} is not empty; mount on an empty folder, or its files would be hidden")
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        raise Unusable(f"{mountpoint} is not yours to write, as FUSE asks; mount on a folder of your own")
    return mountpoint


def require_fuse() -> None:
    """Return if FUSE can be used by this user. Raises Unusable with what is missing and what to do."""
    if not FUSE_DEVICE.exists():
        raise Unusable(
            f"{FUSE_DEVICE} is not there; load it with: modprobe fuse (in a container: --device /dev/fuse "
            "--cap-add SYS_ADMIN)"
        )
    if shutil.which("fusermount3") is None:
        raise Unusable("fusermount3 is missing; install it with: apt-get install fuse3")
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise Unusable(f"{FUSE_DEVICE} may not be opened by this user; ask for mode 0666 on it")


def clear_dead_mount(mountpoint: Path) -> bool:
    """Unmount what a dead daemon of ours left behind and return True, if there is such a thing.

    Its sign is ENOTCONN, "Transport endpoint is not connected".
    """
    mounted = mounted_at(mountpoint)
    if mounted is None or mounted.type != FUSE_TYPE or not is_dead(place_of(mountpoint)):
        return False
    unmount(mountpoint, lazily=True)
    return True


def is_dead(mountpoint: Path) -> bool:
    """Return True if nobody serves a mount any more; one that is frozen is not dead."""
    # Who waits for a frozen daemon cannot even be killed, so nobody waits for the one who asks.
    asking = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", STATVFS_ERRNO, mountpoint],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return asking.wait(ANSWER_TIMEOUT_S) == errno.ENOTCONN
    except subprocess.TimeoutExpired:
        asking.kill()
    try:
        asking.wait(KILLED_TIMEOUT_S)  # as long as it is there, the mount is in use
    except subprocess.TimeoutExpired:
        asking.returncode = -signal.SIGKILL  # some day; it is not ours to wait for any more
    return False


def mounted_at(mountpoint: Path) -> Mounted | None:
    """Return what is mounted exactly at a path, on top if several are, None if nothing is.

    The path may be relative, end in a slash, and lead through symbolic links.
    """
    wanted = os.fsencode(place_of(mountpoint))
    found = None
    for line in _lines():
        if line.place == wanted:
            found = line.mounted
    return found


def remains(mounted: Mounted) -> bool:
    """Return whether a mount is still there somewhere, as it is if it was bound to several places."""
    return any(line.mounted == mounted for line in _lines())


def is_automount(mountpoint: Path) -> bool:
    """Return whether somebody who looks into a folder waits for it to be mounted on."""
    mounted = mounted_at(mountpoint)
    return mounted is not None and mounted.type == AUTOMOUNT_TYPE


def all_of_ours() -> list[Ours]:
    """Return every mount of tciafs that can be seen, each once though it may be bound to several places."""
    by_device: dict[int, Ours] = {}
    for line in _on_top().values():
        if line.mounted.type == FUSE_TYPE:
            by_device.setdefault(line.mounted.device, _ours(line))
    return list(by_device.values())


def ours_around(path: Path) -> tuple[Ours, str] | None:
    """Return the mount of tciafs that a path lies in, and the path inside it ("/" for all); else None.

    Symbolic links outside are followed. Nothing inside is touched: there are no links there, and a lookup
    could cost a download or wait for a frozen daemon. Raises Unusable where links go in a circle.
    """
    mounts = _on_top()
    place: list[bytes] = []
    pending = os.fsencode(path.absolute()).split(b"/")[::-1]
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            place[-1:] = []
        if name in (b"", b".", b".."):
            continue
        place.append(name)
        if _innermost(mounts, place)[0].mounted.type == FUSE_TYPE:
            continue
        target = _link_at(place)
        if target is not None:
            links += 1
            if links > MOST_LINKS:
                raise Unusable(f"{path} leads through symbolic links in a circle")
            place = [] if target.startswith(b"/") else place[:-1]
            pending += target.split(b"/")[::-1]
    line, inside = _innermost(mounts, place)
    return (_ours(line), os.fsdecode(inside)) if line.mounted.type == FUSE_TYPE else None


def _innermost(mounts: Mapping[bytes, _Line], place: list[bytes]) -> tuple[_Line, bytes]:
    """Return the mount that a place lies in, and where in it."""
    for depth in range(len(place), -1, -1):
        if line := mounts.get(b"/" + b"/".join(place[:depth])):
            return line, b"/" + b"/".join(place[depth:])
    return _Line(b"/", Mounted("", 0), -1), b"/" + b"/".join(place)


def _link_at(place: list[bytes]) -> bytes | None:
    try:
        return os.fsencode(Path(os.fsdecode(b"/" + b"/".join(place))).readlink())
    except OSError:
        return None


def _ours(line: _Line) -> Ours:
    return Ours(Path(os.fsdecode(line.place)), line.owner_uid)


def _on_top() -> Mapping[bytes, _Line]:
    """Return by place what is mounted there, on top if several are, in the order of mounting."""
    return {line.place: line for line in _lines()}


def _lines() -> Iterator[_Line]:
    """Yield what is mounted, in the order of mounting."""
    # Only a newline ends a line: the kernel leaves all other odd characters of a path as they are.
    for line in MOUNTINFO.read_bytes().split(b"\n"):
        fields, dash, after = line.partition(b" - ")  # see proc(5)
        if not dash:
            continue
        _id, _parent, device, _root, place = fields.split(b" ")[:5]
        major, _, minor = device.partition(b":")
        kind, _source, options = (*after.split(b" "), b"", b"")[:3]
        owner = re.search(rb"(?:^|,)user_id=([0-9]+)", options)
        mounted = Mounted(os.fsdecode(kind), os.makedev(int(major), int(minor)))
        yield _Line(_unescaped(place), mounted, int(owner[1]) if owner else -1)


def unmount(mountpoint: Path, *, lazily: bool = False) -> Path:
    """Unmount, and return where it was mounted; `lazily` also what is in use, as is done with a dead mount.

    What is alive and in use stays as it is, also where its daemon is frozen. Raises Misuse if nothing of ours
    is mounted there, Unusable if it is alive and in use.
    """
    mounted = mounted_at(mountpoint)
    if mounted is None:
        raise Misuse(f"nothing is mounted at {mountpoint}")
    if mounted.type != FUSE_TYPE:
        raise Misuse(f"{mounted.type} is mounted at {mountpoint}, not tciafs")
    path = place_of(mountpoint)
    command = ["fusermount3", "-u", *(["-z"] if lazily else []), "--", str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S)
    except FileNotFoundError:
        raise Unusable("fusermount3 is missing; install it with: apt-get install fuse3") from None
    except subprocess.TimeoutExpired:
        raise Unusable(f"{mountpoint} could not be unmounted within {HELPER_TIMEOUT_S:g} s") from None
    if done.returncode == 0:
        return path
    if "busy" not in done.stderr:
        raise Unusable(f"{mountpoint} could not be unmounted: {done.stderr.strip()}")
    if lazily or not is_dead(path):
        raise Unusable(f"{mountpoint} is in use; see who with: fuser -vm {mountpoint}")
    return unmount(path, lazily=True)


def place_of(mountpoint: Path) -> Path:
    """Return a mount point as the kernel knows it, without touching what may be mounted there.

    The path may be relative and lead through symbolic links. Raises Unusable where they go in a circle.
    """
    path = mountpoint.absolute()
    for _link in range(MOST_LINKS):
        if path.name == "..":
            return Path(os.path.realpath(path))
        path = Path(os.path.realpath(path.parent)) / path.name
        if os.fsencode(path) in _on_top():
            return path  # no link; and to ask would wait for an automount, which waits for us
        try:
            path = path.parent / path.readlink()
        except OSError:
            return path
    raise Unusable(f"{mountpoint} is a symbolic link that leads in a circle")


def _unescaped(field: bytes) -> bytes:
    """Return a mountinfo field with its octal escapes (space, tab, newline, backslash) undone."""
    return re.sub(rb"\\([0-7]{3})", lambda escape: bytes([int(escape[1], 8)]), field)
