"""`mount.tciafs`: what mount(8) runs for the type tciafs, so that /etc/fstab and systemd's automount work.

Its words are those of mount(8), its exit codes too: 0 fine, 1 wrong use, 32 the mount failed. What root
mounts for a machine is not in root's home folder. Defined here and only here: those codes and those folders.
"""

import getopt
import os
import pwd
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tciafs.cli.agreeing import ensure_agreed
from tciafs.cli.output import fail_with, say
from tciafs.errors import Misuse, TciafsError
from tciafs.setting_sources import load_settings
from tciafs.settings import Settings

__all__ = ["main", "run"]

WRONG_USE, MOUNT_FAILED = 1, 32
CONFIGURATION = Path("/etc/tciafs/config.toml")
CACHES = Path("/var/cache/tciafs")
LOGS = Path("/var/log/tciafs")


def main() -> None:
    """Be mount.tciafs, and exit with its code."""
    try:
        run(sys.argv[1:])
    except Misuse as error:
        sys.exit(fail_with(error, WRONG_USE))
    except TciafsError as error:
        sys.exit(fail_with(error, MOUNT_FAILED))


def run(words: Sequence[str]) -> None:
    """Mount as mount(8) says: `SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]`. Raises TciafsError."""
    try:
        flags, places = getopt.gnu_getopt(list(words), "sfnvo:N:t:")
    except getopt.GetoptError as error:
        raise Misuse(f"mount.tciafs: {error}") from None
    if len(places) != 2:
        raise Misuse("mount.tciafs takes a name and a mount point: mount -t tciafs tcia /mnt/tcia")
    mountpoint = Path(places[1]).absolute()
    settings = _settings(_options(flags), mountpoint, os.environ)
    if ("-f", "") in flags:
        return
    from tciafs import launching
    from tciafs.filesystem.mountpoint import prepare

    ensure_agreed(settings)
    message = launching.start(settings, prepare(mountpoint))
    if ("-v", "") in flags:
        say(message)


def _options(flags: Sequence[tuple[str, str]]) -> str:
    """Return the words after -o that mean something to us."""
    words = [word for flag, text in flags if flag == "-o" for word in text.split(",")]
    if "remount" in words:
        raise Misuse("a mount of tciafs cannot be changed: unmount it, and mount it again")
    # With "user" in /etc/fstab, mount(8) adds who mounts; that is not who has a login at the archive.
    who_mounts = f"user={pwd.getpwuid(os.getuid()).pw_name}"
    return ",".join(word for word in words if word != who_mounts)


def _settings(options: str, mountpoint: Path, environment: Mapping[str, str]) -> Settings:
    if os.geteuid() != 0:
        return load_settings({}, options, environment)
    settings = load_settings({}, options, environment, CONFIGURATION if CONFIGURATION.exists() else None)
    name = _as_one_name(mountpoint)
    return replace(
        settings,
        cache_dir=settings.cache_dir or CACHES / name,
        log_file=settings.log_file or LOGS / f"{name}.log",
    )


def _as_one_name(mountpoint: Path) -> str:
    """Return a path as one name, as systemd-escape(1) --path writes it."""

    def escaped(odd: re.Match[bytes]) -> bytes:
        return b"-" if odd[0] == b"/" else b"\\x%02x" % odd[0][0]

    return os.fsdecode(re.sub(rb"^\.|[^A-Za-z0-9:_.]", escaped, os.fsencode(mountpoint).strip(b"/")) or b"-")
