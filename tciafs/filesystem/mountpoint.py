"""Whether a folder can be mounted on, what is mounted where, and how to unmount.

Reads /proc/self/mountinfo rather than touching mounts, since a dead or frozen one would block. Called
by commands before and after a mount lives, never by the daemon on its own mount.
"""

import errno
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tciafs.errors import Misuse, Unusable

__all__ = ["FUSE_TYPE", "Mounted", "clear_dead_mount", "mounted_at", "prepare", "unmount"]

FUSE_TYPE = "fuse.tciafs"
FUSE_DEVICE = Path("/dev/fuse")
HELPER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount: its file system type, and the device number that stat gives for what is on it."""

    type: str
    device: int


def prepare(mountpoint: Path) -> Path:
    """Return the absolute path of a folder that can be mounted on; a dead mount there is cleared first.

    Raises Unusable with what is wrong and what to do.
    """
    _require_fuse()
    mountpoint = _absolute(mountpoint)
    clear_dead_mount(mountpoint)
    mounted = mounted_at(mountpoint)
    if mounted is not None and mounted.type == FUSE_TYPE:
        raise Unusable(f"{mountpoint} already has tciafs mounted; see tciafs umount {mountpoint}")
    if mounted is not None and mounted.type.startswith("fuse"):
        raise Unusable(f"{mountpoint} already has something mounted ({mounted.type})")
    try:
        occupied = any(mountpoint.iterdir())
    except FileNotFoundError:
        raise Unusable(f"{mountpoint} does not exist; make it with: mkdir -p {mountpoint}") from None
    except NotADirectoryError:
        raise Unusable(f"{mountpoint} is not a folder") from None
    except OSError as error:
        raise Unusable(f"{mountpoint} cannot be used: {error.strerror}") from error
    if occupied:
        raise Unusable(f"{mountpoint} is not empty; mount on an empty folder, or its files would be hidden")
    return mountpoint


def _require_fuse() -> None:
    if not FUSE_DEVICE.exists():
        raise Unusable(
            "/dev/fuse is not there; load it with: modprobe fuse (in a container: --device /dev/fuse "
            "--cap-add SYS_ADMIN)"
        )
    if shutil.which("fusermount3") is None:
        raise Unusable("fusermount3 is missing; install it with: apt-get install fuse3")
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise Unusable("/dev/fuse may not be opened by this user; ask for mode 0666 on it")


def clear_dead_mount(mountpoint: Path) -> bool:
    """Unmount what a dead daemon left behind and return True, if there is such a thing.

    Its sign is ENOTCONN, "Transport endpoint is not connected".
    """
    try:
        mountpoint.stat()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            return False
    else:
        return False
    unmount(mountpoint, lazily=True)
    return True


def mounted_at(mountpoint: Path) -> Mounted | None:
    """Return what is mounted exactly at a path, on top if several are, None if nothing is."""
    wanted = str(_absolute(mountpoint))
    found = None
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, after = line.partition(" - ")  # see proc(5)
        _id, _parent, device, _root, place = fields.split(" ")[:5]
        if _unescape(place) == wanted:
            major, _, minor = device.partition(":")
            found = Mounted(after.split(" ")[0], os.makedev(int(major), int(minor)))
    return found


def unmount(mountpoint: Path, *, lazily: bool = False) -> None:
    """Unmount. Raises Misuse if nothing of ours is mounted there, Unusable if it is in use."""
    mounted = mounted_at(mountpoint)
    if mounted is None or mounted.type != FUSE_TYPE:
        what = "nothing is mounted" if mounted is None else f"{mounted.type} is mounted"
        raise Misuse(f"{what} at {mountpoint}, not tciafs")
    command = ["fusermount3", "-u", *(["-z"] if lazily else []), "--", str(mountpoint)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S)
    except FileNotFoundError:
        raise Unusable("fusermount3 is missing; install it with: apt-get install fuse3") from None
    except subprocess.TimeoutExpired:
        raise Unusable(f"{mountpoint} could not be unmounted within {HELPER_TIMEOUT_S:g} s") from None
    if done.returncode == 0:
        return
    if "busy" in done.stderr:
        raise Unusable(f"{mountpoint} is in use; see who with: fuser -vm {mountpoint}")
    raise Unusable(f"{mountpoint} could not be unmounted: {done.stderr.strip()}")


def _absolute(mountpoint: Path) -> Path:
    """Return the path as the kernel knows it, without looking at what may be mounted there."""
    name = mountpoint.absolute().name
    return mountpoint.absolute().parent.resolve() / name


def _unescape(field: str) -> str:
    """Return a mountinfo field with its octal escapes (space, tab, newline, backslash) undone."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field
