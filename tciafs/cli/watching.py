"""`tciafs status --watch`: asked each second; a screen on a terminal, elsewhere plainly at each change.

The screen ends on q or Ctrl-C and leaves the terminal as it was; it ends by itself when no daemon is left.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tciafs.cli.daemons import asked_quietly
from tciafs.cli.output import fail, fail_with, say, sentence
from tciafs.control.report import json_line, printable, report

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from tciafs.cli.daemons import Answered
    from tciafs.control.speeds import Speeds
    from tciafs.control.values import Status
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["watch"]

EVERY_S = 1.0
KEYS_READ = 64
ENDING_KEYS = frozenset(b"qQ\x03\x04")
"""q, and Ctrl-C and Ctrl-D where they arrive as keys."""


def watch(find: "Callable[[], Sequence[Ours]]", *, as_json: bool) -> int:
    """Show what mounts do until told to end, or until none of their daemons answers; return an exit code.

    `find` gives the mounts, each time anew. Raises what it raises the first time.
    """
    find()
    try:
        if not as_json and sys.stdout.isatty():
            return _watch_on_screen(find)
        return _watch_plainly(find, as_json=as_json)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # whoever read it has seen enough; nothing is left to be flushed to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _rounds(find: "Callable[[], Sequence[Ours]]") -> "Iterator[Sequence[Answered[Status]]]":
    """Yield what all mounts answer, until none of them has a daemon."""
    from tciafs.control.client import ask_status
    from tciafs.errors import NoDaemon, Unusable

    while True:
        try:
            answers = [asked_quietly(mount, ask_status) for mount in find()]
            if any(isinstance(each.error, NoDaemon) for each in answers):
                there = find()  # to be unmounted while it is asked is no error of a mount
                answers = [each for each in answers if each.error is None or each.mount in there]
        except Unusable:
            return
        yield answers
        if answers and all(isinstance(each.error, NoDaemon) for each in answers):
            return


def _watch_plainly(find: "Callable[[], Sequence[Ours]]", *, as_json: bool) -> int:
    """Print what has changed, whole mount by whole mount."""
    shown: dict[Path, str] = {}
    exit_code = 0
    for answers in _rounds(find):
        exit_code = 0
        for each in answers:
            if each.error is not None:
                exit_code = each.error.exit_code
                text = sentence(str(each.error), each.error.hint)
            else:
                assert each.answer is not None
                text = json_line(each.answer) if as_json else report(each.answer)
            if shown.get(each.mount.path) != text:
                shown[each.mount.path] = text
                _print(text, is_error=each.error is not None)
        sys.stdout.flush()
        time.sleep(EVERY_S)
    return exit_code


def _print(text: str, *, is_error: bool) -> None:
    if is_error:
        fail(text, 1)
    else:
        say(text)


def _watch_on_screen(find: "Callable[[], Sequence[Ours]]") -> int:
    """Fill the terminal with what mounts do."""
    from rich.console import Console, Group
    from rich.live import Live

    console = Console()
    speeds: dict[Path, Speeds] = {}
    last: Sequence[Answered[Status]] = ()
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        for answers in _rounds(find):
            last = answers
            shown = [part for each in answers for part in (_shown(each, speeds, console.width), "")]
            live.update(Group(*shown, _footer()), refresh=True)
            if pressed(EVERY_S):
                return 0
    exit_code = 0
    for each in last:
        if each.error is not None:
            exit_code = fail_with(each.error)
    return exit_code


def _shown(each: "Answered[Status]", speeds: "dict[Path, Speeds]", width: int) -> "RenderableType":
    from rich.text import Text

    from tciafs.cli.watch_view import view
    from tciafs.control.speeds import Speeds

    if each.answer is None:
        return Text(printable(str(each.error)), style="red")
    speed = speeds.setdefault(each.mount.path, Speeds())
    speed.note(each.answer, time.monotonic())
    return view(each.answer, speed, width)


def _footer() -> "RenderableType":
    from rich.text import Text

    return Text(f"{time.strftime('%H:%M:%S')}  q: end", style="dim")


@contextmanager
def _keys() -> "Iterator[Callable[[float], bool]]":
    """Read keys without showing them; gives what waits for a time and says whether one was to end it all."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
    if descriptor < 0:
        yield _no_key
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda wait_s: _is_ending_key_within(descriptor, wait_s)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_key(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def _is_ending_key_within(descriptor: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while (left_s := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left_s)[0]:
            return False
        keys = os.read(descriptor, KEYS_READ)
        if not keys or ENDING_KEYS.intersection(keys):  # no keys: the terminal is gone
            return True
    return False
