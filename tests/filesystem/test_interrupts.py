"""Who waits is let go when it is told to die: with real processes that have real signals pending."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.errors import Interrupted
from tciafs.filesystem import interrupts as module
from tciafs.filesystem.interrupts import LOOK_EVERY_S, Interrupts, has_deliverable_signal

GONE = 4_000_001
"""A process id above any that Linux gives."""

NOBODY = 0
"""The id of a process that the kernel cannot name to us: it lives in another namespace."""


@contextmanager
def process_that(script: str) -> Iterator[int]:
    """A process that has run `script` and waits for its input to end."""
    code = f"import os, signal\n{script}\nos.write(1, b'.')\nos.read(0, 1)"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@contextmanager
def stopped_with(number: int, script: str = "") -> Iterator[int]:
    """A stopped process to which a signal was sent: it stays pending until the process goes on."""
    with process_that(script) as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        os.kill(pid, number)
        yield pid


def test_a_process_without_signals_has_none_to_act_on() -> None:
    with process_that("") as pid:
        assert not has_deliverable_signal(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_pending_signal_that_ends_a_process_is_deliverable(number: int) -> None:
    with stopped_with(number) as pid:
        assert has_deliverable_signal(pid)


def test_a_pending_signal_with_a_handler_is_deliverable() -> None:
    with stopped_with(signal.SIGUSR1, "signal.signal(signal.SIGUSR1, lambda *_: None)") as pid:
        assert has_deliverable_signal(pid)


def test_a_pending_signal_that_is_blocked_is_not_deliverable() -> None:
    script = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); signal.raise_signal(signal.SIGINT)"
    with process_that(script) as pid:
        assert not has_deliverable_signal(pid)


def test_a_signal_blocked_beside_a_deliverable_one_does_not_hide_it() -> None:
    script = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); signal.raise_signal(signal.SIGINT)"
    with stopped_with(signal.SIGTERM, script) as pid:
        assert has_deliverable_signal(pid)


def test_a_pending_signal_that_is_ignored_is_not_deliverable() -> None:
    script = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); signal.raise_signal(signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    )
    with process_that(script) as pid:
        assert not has_deliverable_signal(pid)


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGPROF])
def test_a_signal_of_ordinary_work_ends_no_wait_also_with_a_handler(number: int) -> None:
    with stopped_with(number, f"signal.signal({int(number)}, lambda *_: None)") as pid:
        assert not has_deliverable_signal(pid)


def test_a_thread_sees_the_signals_of_its_process() -> None:
    script = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    with stopped_with(signal.SIGTERM, script) as pid:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        assert len(threads) == 2
        assert all(has_deliverable_signal(thread) for thread in threads)


@pytest.mark.parametrize("pid", [GONE, NOBODY, -1])
def test_who_is_gone_or_not_to_be_seen_has_no_signal(pid: int) -> None:
    assert not has_deliverable_signal(pid)


def test_our_own_process_has_no_signal() -> None:
    assert not has_deliverable_signal(os.getpid())


# Waiting


class Signals:
    """Which processes have a signal; stands in for /proc."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pending: set[int] = set()
        self.looked_at: list[int] = []
        monkeypatch.setattr(module, "has_deliverable_signal", self._look)

    def _look(self, pid: int) -> bool:
        self.looked_at.append(pid)
        return pid in self.pending


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Signals:
    return Signals(monkeypatch)


async def wait_for_ever(interrupts: Interrupts, pid: int) -> None:
    with pytest.raises(Interrupted, match=str(pid)), interrupts.watching(pid):
        await trio.sleep_forever()


async def test_a_wait_ends_soon_after_its_process_gets_a_signal(
    nursery: trio.Nursery, autojump_clock: MockClock, signals: Signals
) -> None:
    interrupts = Interrupts()
    nursery.start_soon(interrupts.run)
    with trio.CancelScope() as bound:
        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait_for_ever, interrupts, 7)
            await trio.sleep(10.05)
            signals.pending.add(7)
            bound.deadline = trio.current_time() + 2 * LOOK_EVERY_S
    assert not bound.cancelled_caught


async def test_only_the_wait_of_the_process_with_the_signal_ends(
    nursery: trio.Nursery, autojump_clock: MockClock, signals: Signals
) -> None:
    interrupts = Interrupts()
    nursery.start_soon(interrupts.run)
    may_end = trio.Event()
    ended: list[str] = []

    async def patient() -> None:
        with interrupts.watching(8):
            await may_end.wait()
        ended.append("patient")

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait_for_ever, interrupts, 7)
        waiting.start_soon(wait_for_ever, interrupts, 7)
        waiting.start_soon(patient)
        await wait_all_tasks_blocked()
        signals.pending.add(7)
        await trio.sleep(1)
        assert len(waiting.child_tasks) == 1
        may_end.set()
    assert ended == ["patient"]


async def test_a_real_signal_of_a_real_process_ends_its_wait(nursery: trio.Nursery) -> None:
    interrupts = Interrupts()
    nursery.start_soon(interrupts.run)
    with stopped_with(signal.SIGINT) as pid, trio.fail_after(10):
        await wait_for_ever(interrupts, pid)


async def test_a_wait_without_a_known_process_is_never_looked_at(
    nursery: trio.Nursery, autojump_clock: MockClock, signals: Signals
) -> None:
    interrupts = Interrupts()
    nursery.start_soon(interrupts.run)
    signals.pending.add(NOBODY)
    with interrupts.watching(NOBODY):
        await trio.sleep(5)
    assert signals.looked_at == []


async def test_nobody_is_looked_at_while_nobody_waits(
    nursery: trio.Nursery, autojump_clock: MockClock, signals: Signals
) -> None:
    interrupts = Interrupts()
    nursery.start_soon(interrupts.run)
    with interrupts.watching(7):
        await trio.sleep(1)
    signals.looked_at.clear()
    await trio.sleep(100)
    assert signals.looked_at == []
    with interrupts.watching(7):
        await trio.sleep(1)
    assert signals.looked_at, "who waits later is looked at again"


async def test_an_answer_that_is_there_at_once_is_given_whatever_signals_there_are(signals: Signals) -> None:
    signals.pending.add(7)
    with Interrupts().watching(7):
        answer = "there"
    assert answer == "there"


async def test_errors_inside_a_wait_come_out_as_they_are() -> None:
    interrupts = Interrupts()
    with pytest.raises(ValueError, match="as it is"), interrupts.watching(7):
        raise ValueError("as it is")
    assert interrupts._waiting == {}


async def test_cancelling_from_outside_is_no_interruption(autojump_clock: MockClock) -> None:
    interrupts = Interrupts()
    with trio.move_on_after(1) as outside, interrupts.watching(7):
        await trio.sleep_forever()
    assert outside.cancelled_caught
    assert interrupts._waiting == {}


async def test_closing_lets_go_of_all_who_wait_and_of_all_who_come_later() -> None:
    interrupts = Interrupts()
    async with trio.open_nursery() as waiting:
        for pid in (7, 8, NOBODY):
            waiting.start_soon(wait_for_ever, interrupts, pid)
        await wait_all_tasks_blocked()
        interrupts.close()
    await wait_for_ever(interrupts, 9)
    interrupts.close()
    assert interrupts._waiting == {}
