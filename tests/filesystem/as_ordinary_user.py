"""A mount of an ordinary user, made by root for a test: `python as_ordinary_user.py REPOSITORY URL FOLDER`.

To be run by `unshare --mount`: what is changed of the machine is changed for these processes alone. Prints
what was seen, as JSON.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

USER, ANOTHER = 65534, 65533
FUSE_DEVICE = os.makedev(10, 229)
TIMEOUT_S = 60
MARK = "MOUNTED_FOR_TEST"
"""That of tests/mounting, which this, run by itself, cannot import."""


def let_all_use_fuse(folder: Path) -> None:
    """Put a device that everybody may open in the place of one that only root may, as some machines have."""
    device = folder / "fuse"
    os.mknod(device, 0o666 | 0o020000, FUSE_DEVICE)
    device.chmod(0o666)
    subprocess.run(["mount", "--bind", device, "/dev/fuse"], check=True)


def leave_alone_what_others_mount() -> None:
    """Let go of the mounts of tests beside this one: what they unmount would live on in here."""
    subprocess.run(
        ["umount", "--all", "--lazy", "--types", "fuse.tciafs"], check=False, stderr=subprocess.DEVNULL
    )


def let_all_reach(paths: Sequence[Path], folder: Path) -> None:
    """See to it that everybody can reach paths and read them, such as an interpreter in root's own folder."""
    closed = {each for each in map(outermost_closed, paths) if each is not None}
    hidden = [path for path in paths if any(path.is_relative_to(each) for each in closed)]
    shown = {path: folder / f"shown-{number}" for number, path in enumerate(paths)}
    for path, place in shown.items():
        show(path, place)
    for each in closed:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", each], check=True)
    for path in hidden:
        for each in [*reversed(path.parents), path]:
            each.mkdir(mode=0o755, exist_ok=True)
    for path, place in shown.items():
        subprocess.run(["mount", "--bind", place, path], check=True)


def show(path: Path, place: Path) -> None:
    """Have what is in a folder at another place too, where everybody can read it: a copy if need be.

    Who clones with a umask of 077 has a checkout of which nobody else can read a file.
    """
    place.mkdir()
    if is_readable_for_all(path):
        subprocess.run(["mount", "--bind", path, place], check=True)
    else:
        subprocess.run(["cp", "--archive", f"{path}/.", place], check=True)
        subprocess.run(["chmod", "--recursive", "a+rX", place], check=True)


def is_readable_for_all(path: Path) -> bool:
    """Return whether everybody may read a folder and all that is below it."""
    closed: list[str | Path] = ["find", path, "!", "-type", "l", "!", "-perm", "-o=r", "-print", "-quit"]
    return not subprocess.run(closed, check=True, capture_output=True).stdout


def outermost_closed(path: Path) -> Path | None:
    """Return the first folder on the way to a path through which not everybody may go; None if all may."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


def tciafs(user: int, repository: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the program as a user, who has no folder of his own and no rights but his."""
    return subprocess.run(
        [sys.executable, "-m", "tciafs", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=repository,
        user=user,
        group=user,
        extra_groups=[],
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "XDG_RUNTIME_DIR": "/nonexistent",
            MARK: os.environ[MARK],
        },
    )


def seen_by(user: int, mountpoint: Path) -> Any:
    """Return what a user sees of a mount: the collections, or the errno."""
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys; print(*os.listdir(sys.argv[1]))", mountpoint],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
    )
    return done.stdout.split() or ("EACCES" if "Errno 13" in done.stderr else done.stderr)


def whose(path: Path) -> str:
    """Return the owner of a file, and what others may do with it."""
    status = path.stat()
    return f"{status.st_uid} {status.st_mode & 0o077:o}"


def main() -> None:
    """Mount as a user, and look at it as several."""
    # What this makes of folders is for all, also where the machine's umask is 077.
    os.umask(0o022)
    repository, url, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    leave_alone_what_others_mount()
    let_all_use_fuse(folder)
    let_all_reach([Path(sys.base_prefix), repository], folder)
    place = folder / "place"
    mountpoint, cache = place / "mnt", place / "cache"
    for each in (place, mountpoint):
        each.mkdir()
        os.chown(each, USER, USER)
    log = place / "log"
    options: list[str | Path] = ["--url", url, "--cache-dir", cache, "--log-file", log]
    mounted = tciafs(USER, repository, mountpoint, *options)
    look: Callable[[int], Any] = lambda user: seen_by(user, mountpoint)  # noqa: E731
    seen = {
        "mounted": [mounted.returncode, mounted.stdout + mounted.stderr],
        "owner": look(USER),
        "root": look(0),
        "another": look(ANOTHER),
        "status": tciafs(USER, repository, "status", mountpoint).returncode,
        "status of another": tciafs(ANOTHER, repository, "status", mountpoint).stderr,
        "cache": sorted(
            {f"{path.stat().st_uid} {path.stat().st_mode & 0o077:o}" for path in cache.rglob("*")}
        ),
        "unmounted": tciafs(USER, repository, "umount", mountpoint).returncode,
    }
    # Fails where the daemon still writes.
    shutil.rmtree(cache)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
