"""A mount without a daemon: made by root, for a daemon that has no right to mount.

A service that is confined has mounts of its own, which nobody else sees. So root mounts in everybody's
view, and hands on the descriptor at which the kernel is answered: the daemon needs neither a right, nor a
setuid program, nor /dev/fuse. Blocks; run before the daemon starts. See mount(8), and mount.fuse3(8) for the
options.
"""

import os
import pwd
import stat
import subprocess
from collections.abc import Collection
from pathlib import Path

from tciafs.errors import Misuse, Unusable
from tciafs.filesystem import mountpoint as mountpoints
from tciafs.filesystem.tuning import tune

__all__ = ["attach", "tune_served"]

MOUNT_TIMEOUT_S = 10.0
FOR_LIBFUSE = ("fsname=", "subtype=")
"""What libfuse makes the source and the type of a mount of."""


def attach(mountpoint: Path, options: Collection[str], user: str) -> int:
    """Mount at a folder, which is made if need be, and return the descriptor for who serves it as `user`.

    Raises Unusable where it cannot be mounted on, Misuse for a user who is not there.
    """
    owner = _user_named(user)
    mountpoints.clear_dead_mount(mountpoint)
    mountpoint = mountpoints.prepare(_made(mountpoint))
    descriptor = os.open(mountpoints.FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        _mount(mountpoint, _words(options, descriptor, mountpoint, owner), _source(options), descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def tune_served(mountpoint: Path) -> None:
    """Tune the kernel's side of a mount as only root may, once it is served, which begins with defaults."""
    if mounted := mountpoints.mounted_at(mountpoint):
        tune(mounted.device)


def _made(folder: Path) -> Path:
    """Return a folder, after making it if need be, such that others may pass whatever the umask says."""
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
    except OSError as error:
        raise Unusable(f"{folder} could not be made: {error.strerror}") from error
    return folder


def _user_named(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Misuse(f"there is no user {name}") from None


def _words(
    options: Collection[str], descriptor: int, mountpoint: Path, owner: pwd.struct_passwd
) -> list[str]:
    """Return the options for the kernel: those of libfuse, and what libfuse would add."""
    root_mode = stat.S_IFMT(mountpoint.stat().st_mode)
    ours = sorted(option for option in options if not option.startswith(FOR_LIBFUSE))
    whose = [f"user_id={owner.pw_uid}", f"group_id={owner.pw_gid}"]
    return [f"fd={descriptor}", f"rootmode={root_mode:o}", *whose, *ours]


def _source(options: Collection[str]) -> str:
    (source,) = (option.partition("=")[2] for option in options if option.startswith("fsname="))
    return source


def _mount(mountpoint: Path, words: list[str], source: str, descriptor: int) -> None:
    # -i: not by the helper /sbin/mount.fuse3, which would start a program.
    command = [
        "mount",
        "-i",
        "-t",
        mountpoints.FUSE_TYPE,
        "-o",
        ",".join(words),
        "--",
        source,
        str(mountpoint),
    ]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            pass_fds=[descriptor],
            timeout=MOUNT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{mountpoint} could not be mounted: {error}") from error
    if done.returncode:
        raise Unusable(f"{mountpoint} could not be mounted: {done.stderr.strip()}")
