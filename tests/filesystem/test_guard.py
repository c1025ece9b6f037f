"""Looks and walks: who is counted, when counting starts anew, and that memory is bounded."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.errors import Refused
from tciafs.filesystem.guard import (
    LOOKS_BEFORE_WALK,
    REMEMBERED_PROCESSES,
    REMEMBERED_PROGRAMS,
    REMEMBERED_SERIES,
    Guard,
    process_identity,
    program_names,
)
from tciafs.model import Series
from tciafs.settings import Settings
from tests.fakes import make_series

GONE = 4_000_001
"""A process id above any that Linux gives."""


@contextmanager
def child() -> Iterator[int]:
    """A process that lives for the length of the block."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield process.pid
    finally:
        process.communicate()


def looks(guard: Guard, pid: int, times: int) -> list[bool]:
    """Return for each of so many listings in a row whether it counted as part of a walk."""
    return [guard.lists_unknown_series(pid) for _ in range(times)]


def test_three_looks_in_a_row_are_looks_and_all_after_them_a_walk() -> None:
    with child() as pid:
        assert looks(Guard(), pid, 6) == [False, False, False, True, True, True]


def test_touching_an_image_makes_a_walker_a_looker_again() -> None:
    guard = Guard()
    with child() as pid:
        looks(guard, pid, 5)
        guard.touches_image(pid)
        assert looks(guard, pid, 4) == [False, False, False, True]


def test_who_touches_an_image_between_folders_never_walks() -> None:
    guard = Guard()
    with child() as pid:
        for _ in range(10):
            assert not guard.lists_unknown_series(pid)
            guard.touches_image(pid)


def test_touching_before_anything_was_listed_is_harmless() -> None:
    guard = Guard()
    guard.touches_image(os.getpid())
    assert looks(guard, os.getpid(), 4) == [False, False, False, True]


def test_processes_are_counted_apart() -> None:
    guard = Guard()
    with child() as one, child() as other:
        assert looks(guard, one, 4)[-1]
        assert not guard.lists_unknown_series(other)
        guard.touches_image(other)
        assert guard.lists_unknown_series(one)


def test_threads_of_a_process_are_counted_together() -> None:
    guard = Guard()
    main = os.getpid()
    ids: list[int] = []
    may_end = threading.Event()
    started = threading.Semaphore(0)

    def wait() -> None:
        ids.append(threading.get_native_id())
        started.release()
        may_end.wait()

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
        started.acquire()
    try:
        first, second = ids
        assert len({first, second, main}) == 3
        assert process_identity(first) == process_identity(second) == process_identity(main)
        assert [guard.lists_unknown_series(pid) for pid in (first, second, main)] == [False] * 3
        assert guard.lists_unknown_series(first)
        guard.touches_image(second)
        assert not guard.lists_unknown_series(first)
    finally:
        may_end.set()
        for thread in threads:
            thread.join()


def test_a_process_that_gets_the_id_of_a_walker_is_not_one() -> None:
    born = {"at": "100"}
    now = {"s": 0.0}
    guard = Guard(identify=lambda pid: f"{pid}@{born['at']}", now=lambda: now["s"])
    assert looks(guard, 77, 4)[-1]
    born["at"], now["s"] = "200", 5.0
    assert not guard.lists_unknown_series(77)


def test_who_a_process_is_is_not_asked_for_each_image_it_touches() -> None:
    asked: list[int] = []

    def identify(pid: int) -> str:
        asked.append(pid)
        return str(pid)

    now = {"s": 0.0}
    guard = Guard(identify=identify, now=lambda: now["s"])
    guard.lists_unknown_series(1)
    for _ in range(100):
        guard.touches_image(2)
    assert asked == [1, 2]
    now["s"] = 1.5
    guard.touches_image(2)
    assert asked == [1, 2, 2]


def test_two_processes_in_a_row_with_one_id_have_two_identities() -> None:
    with child() as pid:
        alive = process_identity(pid)
        assert alive.startswith(f"{pid}@")
    assert process_identity(pid) == str(pid)


def test_a_process_whose_name_looks_like_its_status_is_known_all_the_same() -> None:
    rename = (
        "import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 1 (x\\n', 0, 0, 0); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        before = process_identity(process.pid)
        process.stdout.readline()
        assert process_identity(process.pid) == before
        process.communicate()


@pytest.mark.parametrize("pid", [0, GONE])
def test_a_process_that_proc_does_not_show_is_known_by_its_id(pid: int) -> None:
    assert process_identity(pid) == str(pid)
    assert looks(Guard(), pid, 4) == [False, False, False, True]


def test_in_mode_names_every_listing_is_a_walk() -> None:
    guard = Guard("names")
    assert looks(guard, os.getpid(), 2) == [True, True]
    guard.touches_image(os.getpid())
    assert guard.lists_unknown_series(os.getpid())


def test_in_mode_exact_no_listing_is_a_walk() -> None:
    assert looks(Guard("exact"), os.getpid(), 10) == [False] * 10


def test_of_ever_more_processes_the_longest_idle_are_forgotten() -> None:
    guard = Guard(identify=str, now=lambda: 0.0)
    assert looks(guard, 1, 4)[-1]
    for pid in range(2, REMEMBERED_PROCESSES + 1):
        guard.lists_unknown_series(pid)
    assert guard.lists_unknown_series(1), "it is still among those remembered"
    for pid in range(2 * REMEMBERED_PROCESSES, 3 * REMEMBERED_PROCESSES):
        guard.lists_unknown_series(pid)
    assert not guard.lists_unknown_series(1)
    assert len(guard._looks) == REMEMBERED_PROCESSES


def test_identities_are_not_collected_for_ever() -> None:
    now = {"s": 0.0}
    guard = Guard(identify=str, now=lambda: now["s"])
    for pid in range(1000):
        now["s"] += 0.5
        guard.lists_unknown_series(pid)
    assert len(guard._identities) <= 3


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=60))
def test_a_listing_is_a_walk_exactly_after_three_of_the_same_process_without_a_touch(
    events: list[tuple[int, bool]],
) -> None:
    guard = Guard(identify=str, now=lambda: 0.0)
    in_a_row = dict.fromkeys((1, 2, 3), 0)
    for pid, is_touch in events:
        if is_touch:
            guard.touches_image(pid)
            in_a_row[pid] = 0
        else:
            assert guard.lists_unknown_series(pid) == (in_a_row[pid] >= LOOKS_BEFORE_WALK)
            in_a_row[pid] += 1


# -- crawlers --


def test_a_crawler_always_walks_and_may_not_cause_a_download() -> None:
    guard = Guard(crawlers=("updatedb*",), names=lambda pid: ("updatedb.plocat", "updatedb.plocate"))
    assert looks(guard, 1, 2) == [True, True]
    with pytest.raises(Refused, match=r"updatedb\.plocat is not allowed to cause downloads"):
        guard.admit(1, make_series())


def test_in_mode_exact_too_a_crawler_walks() -> None:
    assert Guard("exact", ("clamd",), names=lambda pid: ("clamd",)).lists_unknown_series(1)


@pytest.mark.parametrize("names", [(), ("cat",), ("my-updatedb",), ("Updatedb",)])
def test_others_may_download(names: tuple[str, ...]) -> None:
    guard = Guard(crawlers=("updatedb*",), names=lambda pid: names)
    guard.admit(1, make_series())
    assert not guard.lists_unknown_series(1)


def test_a_program_is_known_by_its_comm_and_by_its_file() -> None:
    with child() as pid:
        comm, file = program_names(pid)
    assert comm == Path(sys.executable).name[:15]
    assert file == Path(sys.executable).resolve().name


def test_a_program_that_is_gone_has_no_name() -> None:
    assert program_names(GONE) == ()


@pytest.mark.parametrize(
    "name",
    ["updatedb", "updatedb.plocate", "tracker-miner-fs-3", "baloo_file_extractor", "tumblerd", "clamscan"],
)
def test_the_usual_crawlers_are_known_by_default(name: str) -> None:
    with pytest.raises(Refused):
        Guard(crawlers=Settings().crawlers, names=lambda pid: (name,)).admit(1, make_series())


@pytest.mark.parametrize("name", ["find", "cat", "cp", "python3", "dcmdump", "Slicer", "rsync", "tar"])
def test_readers_are_no_crawlers_by_default(name: str) -> None:
    Guard(crawlers=Settings().crawlers, names=lambda pid: (name,)).admit(1, make_series())


# -- refusals --


class Spent:
    """Budgets that admit so many times more."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[str] = []

    def admit(self, process: str, series: Series) -> None:
        self.asked.append(process)
        if self.left == 0:
            raise Refused("nothing is left")
        self.left -= 1


def test_budgets_are_asked_for_the_process_and_what_they_refuse_is_noted() -> None:
    budgets, series = Spent(1), make_series()
    guard = Guard(budgets=budgets, names=lambda pid: ("cp",), identify=lambda pid: f"process {pid}")
    guard.admit(7, series)
    assert (guard.refusals, guard.why_refused(series)) == ((), None)
    with pytest.raises(Refused, match="nothing is left"):
        guard.admit(8, series)
    assert budgets.asked == ["process 7", "process 8"]
    assert str(guard.why_refused(series)) == "nothing is left"
    budgets.left = 1
    guard.admit(8, series)
    assert guard.why_refused(series) is None


def test_a_crawler_costs_no_budget() -> None:
    budgets = Spent(0)
    with pytest.raises(Refused, match="not allowed"):
        Guard(crawlers=("clamd",), budgets=budgets, names=lambda pid: ("clamd",)).admit(1, make_series())
    assert budgets.asked == []


def test_refusals_are_counted_by_program_the_latest_last() -> None:
    guard = Guard(crawlers=("*",), names=lambda pid: ((), ("a",), ("b",))[pid % 3])
    for pid in (1, 2, 4):
        with pytest.raises(Refused):
            guard.admit(pid, make_series())
    assert [(each.program, each.count, each.pid) for each in guard.refusals] == [("b", 1, 2), ("a", 2, 4)]


def test_refusals_of_countless_programs_and_series_take_little_memory() -> None:
    guard = Guard(crawlers=("*",), names=lambda pid: (f"program {pid}",))
    for pid in range(2 * REMEMBERED_SERIES):
        with pytest.raises(Refused):
            guard.admit(pid, make_series(f"1.{pid}"))
    assert len(guard.refusals) == REMEMBERED_PROGRAMS
    assert guard.why_refused(make_series("1.0")) is None
    assert guard.why_refused(make_series(f"1.{2 * REMEMBERED_SERIES - 1}")) is not None


def test_while_all_stands_still_nobody_is_admitted() -> None:
    pauses: list[Refused | None] = [Refused("downloads are paused"), None]
    guard = Guard(names=lambda pid: ("cp",), paused=lambda: pauses.pop(0))
    with pytest.raises(Refused, match="paused"):
        guard.admit(1, make_series())
    guard.admit(1, make_series())
    assert [each.reason for each in guard.refusals] == ["downloads are paused"]
