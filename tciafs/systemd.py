"""What a service says to systemd and gets from it: ready, alive, and a mount that was made outside for it.

See sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Without systemd nothing is said, and nothing is
there. Nothing waits, but for the event loop whose task `keep_alive` is.
"""

import logging
import os
import socket
from array import array
from collections.abc import Callable, Sequence

__all__ = ["keep_alive", "keep_descriptor", "notify", "say_ready", "take_mount", "watchdog_s"]

log = logging.getLogger(__name__)

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START: where the descriptors begin that systemd hands to a service."""

MOUNT_NAME = "tciafs-mount"
"""What the descriptor of a mount is called while systemd keeps it."""

PINGS_WITHIN_LIMIT = 3
"""One may come late without harm."""


def notify(state: str, *descriptors: int) -> bool:
    """Send a state to systemd, as well as it goes; return whether it was sent.

    False if it did not start us. `descriptors` go with it.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = state.encode(errors="surrogateescape")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # a manager that does not read must not hold up a mount
            # Not socket.send_fds, which forgets the address.
            channel.sendmsg([message], _rights(descriptors), 0, address)
    except OSError as error:
        log.warning("systemd could not be told: %s", error)
        return False
    return True


def watchdog_s() -> float | None:
    """Return how long systemd lets us be silent, in seconds; None if it does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


async def keep_alive(summary: Callable[[], str]) -> None:
    """Say from the event loop that it turns, with a summary for systemctl; ends at once if unwatched.

    A loop that is stuck says nothing, and so is ended and started anew.
    """
    import trio

    limit_s = watchdog_s()
    while limit_s is not None:
        notify(f"WATCHDOG=1\nSTATUS={_line(summary())}")
        await trio.sleep(limit_s / PINGS_WITHIN_LIMIT)


def say_ready(message: str) -> None:
    """Say that the mount answers."""
    notify(f"READY=1\nSTATUS={_line(message)}")


def keep_descriptor(descriptor: int) -> bool:
    """Have systemd keep the descriptor of a mount for who serves it; return whether it was asked to.

    One that was left from an earlier start is dropped.
    """
    notify(f"FDSTOREREMOVE=1\nFDNAME={MOUNT_NAME}")
    return notify(f"FDSTORE=1\nFDNAME={MOUNT_NAME}", descriptor)


def take_mount() -> int | None:
    """Return the descriptor of a mount that was made for this process, None if there is none.

    From then on it is ours alone: when this process dies, programs that wait for the mount get an error.
    """
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    is_for_us = os.environ.get("LISTEN_PID") == str(os.getpid()) and MOUNT_NAME in names
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not is_for_us:
        return None
    descriptor = FIRST_DESCRIPTOR + names.index(MOUNT_NAME)
    os.set_inheritable(descriptor, False)
    notify(f"FDSTOREREMOVE=1\nFDNAME={MOUNT_NAME}")
    return descriptor


def _rights(descriptors: Sequence[int]) -> "list[tuple[int, int, array[int]]]":
    """Return what sends descriptors along; see unix(7), SCM_RIGHTS."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []


def _line(text: str) -> str:
    return " ".join(text.splitlines())
