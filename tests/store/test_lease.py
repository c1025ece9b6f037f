"""The lease of a cache folder: one holder at a time, whatever dies, hangs, or comes from another machine."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tciafs.errors import Unusable
from tciafs.store import holder as holder_module
from tciafs.store.holder import Holder, this_process
from tciafs.store.lease import LEAVING_PATIENCE_S, TOUCH_EVERY_S, WATCH_S, Lease
from tests.fakes import jump_until

ELSEWHERE = Holder("elsewhere", "machine-id", "boot-id", "pid:[1]", 4711, 12345)
PATIENCE_S = 30


def leases(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "lease").iterdir())


def leave_behind(
    folder: Path, holder: Holder | None, name: str = "1", touched_at: float | None = None
) -> Path:
    """Make a lease as a process that died, or that we cannot see, has left it."""
    (folder / "lease").mkdir(parents=True, exist_ok=True)
    file = folder / "lease" / name
    file.write_bytes(msgspec.json.encode(holder) if holder is not None else b"")
    if touched_at is not None:
        os.utime(file, (touched_at, touched_at))
    return file


def dead_process() -> Holder:
    """Return one of this machine that is gone."""
    with subprocess.Popen(["true"]) as process:
        pass
    return msgspec.structs.replace(this_process(), pid=process.pid, began=1)


async def taken(folder: Path, holder: Holder | None = None) -> Lease:
    async with Lease.holding(folder, holder) as lease:
        return lease


@asynccontextmanager
async def touched_every(seconds: float, file: Path) -> AsyncIterator[None]:
    """Touch a lease from time to time, as its holder does."""

    async def touch() -> None:
        for moment in range(1, 1000):
            await trio.sleep(seconds)
            os.utime(file, (moment, moment))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(touch)
        yield
        nursery.cancel_scope.cancel()


# -- free, kept, let go --


async def test_a_new_folder_is_made_and_had(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    async with Lease.holding(folder) as lease:
        assert (leases(folder), lease.lost) == (["1"], None)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert msgspec.json.decode((folder / "lease" / "1").read_bytes(), type=Holder) == this_process()
    assert leases(folder) == ["1.free"]


async def test_what_was_let_go_is_had_at_once_and_nothing_piles_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        await taken(tmp_path)
    assert (leases(tmp_path), trio.current_time()) == (["3.free"], 0.0)


async def test_two_on_one_machine_do_not_share(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with Lease.holding(tmp_path):
        with pytest.raises(
            Unusable, match=rf"another tciafs \(process {os.getpid()} on .*\) uses the cache folder"
        ):
            await taken(tmp_path)
        assert trio.current_time() == pytest.approx(LEAVING_PATIENCE_S, abs=0.2)
        assert leases(tmp_path) == ["1"]


async def test_one_that_is_just_leaving_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def hold() -> None:
        async with Lease.holding(tmp_path):
            await trio.sleep(3)

    nursery.start_soon(hold)
    await trio.sleep(1)
    await taken(tmp_path)
    assert 3 <= trio.current_time() < 3.2


@pytest.mark.parametrize("failing", ["open", "fsync"])
async def test_a_folder_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "lease").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(f"tciafs.store.lease.os.{failing}", fail)
        with pytest.raises(Unusable, match="cannot be used: Read-only file system"):
            await taken(tmp_path)
    await taken(tmp_path)


# -- the dead --


async def test_a_dead_process_of_this_machine_is_followed_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    leave_behind(tmp_path, dead_process())
    async with Lease.holding(tmp_path):
        assert (leases(tmp_path), trio.current_time()) == (["2"], 0.0)


async def test_a_process_with_the_number_of_a_dead_one_is_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    leave_behind(tmp_path, msgspec.structs.replace(this_process(), began=1))
    await taken(tmp_path)
    assert trio.current_time() == 0.0


async def test_a_machine_that_was_started_again_has_no_holder_of_before(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    before = msgspec.structs.replace(this_process(), boot_id="before")
    leave_behind(tmp_path, before, touched_at=holder_module._started_at() - 1)
    await taken(tmp_path)
    assert trio.current_time() == 0.0


@pytest.mark.expect_log(
    "the cache folder belongs to process 4711 on elsewhere: waiting 40 s to see if it is alive"
)
async def test_one_elsewhere_that_is_not_heard_of_is_followed_after_a_while(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    leave_behind(tmp_path, ELSEWHERE, touched_at=1e10)  # a clock that is ahead says nothing
    async with Lease.holding(tmp_path):
        assert leases(tmp_path) == ["2"]
        assert trio.current_time() == pytest.approx(WATCH_S, abs=0.2)


@pytest.mark.expect_log("waiting 40 s to see if it is alive")
async def test_one_elsewhere_that_touches_its_lease_keeps_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    file = leave_behind(tmp_path, ELSEWHERE, touched_at=0.0)  # a clock that is behind says nothing
    async with touched_every(TOUCH_EVERY_S, file):
        with pytest.raises(Unusable, match="process 4711 on elsewhere"):
            await taken(tmp_path)
    assert trio.current_time() <= TOUCH_EVERY_S + 0.2
    assert leases(tmp_path) == ["1"]


@pytest.mark.parametrize(
    "unseen", [{"namespace": "pid:[1]"}, {"boot_id": "later"}, {"boot_id": "later", "machine_id": "other"}]
)
@pytest.mark.expect_log("waiting 40 s to see if it is alive")
async def test_one_that_may_be_alive_unseen_is_not_taken_for_dead(
    tmp_path: Path, autojump_clock: MockClock, unseen: dict[str, str]
) -> None:
    leave_behind(tmp_path, msgspec.structs.replace(this_process(), pid=1 << 22, **unseen))
    await taken(tmp_path)
    assert trio.current_time() == pytest.approx(WATCH_S, abs=0.2)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{}"])
async def test_one_that_died_while_it_wrote_its_lease_is_followed_after_a_moment(
    tmp_path: Path, autojump_clock: MockClock, content: bytes
) -> None:
    leave_behind(tmp_path, None).write_bytes(content)
    await taken(tmp_path)
    assert trio.current_time() == pytest.approx(LEAVING_PATIENCE_S, abs=0.2)


async def test_one_that_is_writing_its_lease_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    leave_behind(tmp_path, None)

    async def write() -> None:
        await trio.sleep(3)
        leave_behind(tmp_path, this_process())

    nursery.start_soon(write)
    with pytest.raises(Unusable, match="another tciafs"):
        await taken(tmp_path)
    assert trio.current_time() == pytest.approx(3 + LEAVING_PATIENCE_S, abs=0.3)


# -- races --


async def test_one_that_is_slow_takes_nothing_that_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it makes number 2, others have had 2 and 3 and removed what was before."""
    leave_behind(tmp_path, dead_process())
    really = os.fsync
    overtaken: list[Path] = []

    def overtake(descriptor: int) -> None:
        if not overtaken:
            overtaken.append(leave_behind(tmp_path, this_process(), "3"))
        really(descriptor)

    monkeypatch.setattr("tciafs.store.lease.os.fsync", overtake)
    monkeypatch.setattr("tciafs.store.lease.LEAVING_PATIENCE_S", 0.0)
    with pytest.raises(Unusable):
        await taken(tmp_path)
    assert leases(tmp_path) == ["1", "3"]


HOLD = """
import sys, trio
from pathlib import Path
from tciafs.errors import Unusable
from tciafs.store import lease
lease.LEAVING_PATIENCE_S = 0.0
async def main():
    sys.stdin.readline()
    try:
        async with lease.Lease.holding(Path(sys.argv[1])):
            print("mine", flush=True)
            sys.stdin.readline()
    except Unusable:
        print("not mine", flush=True)
trio.run(main)
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A process that waits for a word to take the lease, and for another to let it go."""

    process: "subprocess.Popen[str]"

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def contender(folder: Path) -> Iterator[Contender]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Contender(process)
        finally:
            process.kill()


@pytest.mark.parametrize("found", ["nothing", "dead", "free"])
def test_of_many_processes_that_want_it_at_once_one_gets_it(tmp_path: Path, found: str) -> None:
    if found != "nothing":
        leave_behind(tmp_path, dead_process(), "7" if found == "dead" else "7.free")
    with (
        contender(tmp_path) as a,
        contender(tmp_path) as b,
        contender(tmp_path) as c,
        contender(tmp_path) as d,
    ):
        contenders = [a, b, c, d]
        for each in contenders:
            each.tell()
        assert sorted(each.hear() for each in contenders) == ["mine", "not mine", "not mine", "not mine"]
        assert leases(tmp_path) == ["1" if found == "nothing" else "8"]


def test_a_process_that_was_killed_is_followed_and_one_that_ends_lets_go(tmp_path: Path) -> None:
    with contender(tmp_path) as first, contender(tmp_path) as second, contender(tmp_path) as third:
        first.tell()
        assert first.hear() == "mine"
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(PATIENCE_S)
        second.tell()
        assert second.hear() == "mine"
        second.tell()
        second.process.wait(PATIENCE_S)
        assert leases(tmp_path) == ["2.free"]
        third.tell()
        assert third.hear() == "mine"


def test_a_process_that_is_stopped_is_alive_and_one_that_nobody_waits_for_is_dead(tmp_path: Path) -> None:
    with contender(tmp_path) as first, contender(tmp_path) as second, contender(tmp_path) as third:
        first.tell()
        assert first.hear() == "mine"
        first.process.send_signal(signal.SIGSTOP)
        second.tell()
        assert second.hear() == "not mine"
        first.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
        third.tell()
        assert third.hear() == "mine"


# -- keeping and losing it --


def was_touched(file: Path, since: float) -> bool:
    return file.stat().st_mtime != since


async def test_a_lease_is_touched_as_long_as_it_is_held(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with Lease.holding(tmp_path) as lease:
        nursery.start_soon(lease.keep)
        file = tmp_path / "lease" / "1"
        for moment in (1, 2, 3):
            os.utime(file, (moment, moment))
            await jump_until(partial(was_touched, file, moment), TOUCH_EVERY_S)
        assert lease.lost is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["a higher one", "removed"])
async def test_a_lease_that_is_taken_away_is_lost(
    tmp_path: Path, how: str, autojump_clock: MockClock
) -> None:
    async with Lease.holding(tmp_path) as lease:
        if how == "removed":
            (tmp_path / "lease" / "1").unlink()
        else:
            leave_behind(tmp_path, ELSEWHERE, "2")
        assert "was taken over by another tciafs" in await lease.keep()
    assert [name for name in leases(tmp_path) if not name.endswith(".free")] == (
        [] if how == "removed" else ["2"]
    )


@pytest.mark.expect_log("the lease of the cache folder could not be renewed: Input/output error")
async def test_a_lease_that_cannot_be_touched_is_believed_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    now = 0.0
    async with Lease.holding(tmp_path) as lease:
        lease._clock = lambda: now
        lease.touch()
        monkeypatch.setattr("tciafs.store.lease.os.utime", fail)
        now = WATCH_S - 1
        lease.touch()
        assert lease.lost is None
        now = WATCH_S
        lease.touch()
        assert lease.lost == f"the cache folder {tmp_path} is out of reach: Input/output error"


def test_a_process_that_says_nothing_of_itself_is_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_module, "BOOT_ID", Path("/nowhere"))
    first, second = this_process(), this_process()
    assert not first.sees(second)


def test_a_name_with_parentheses_hides_nothing(tmp_path: Path) -> None:
    copy: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    with copy([str(program), "60"]) as process:
        assert holder_module._began(process.pid) is not None
        process.kill()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
async def test_a_folder_that_others_may_write_to_is_unusable(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(Unusable, match=f"others may write to the cache folder {folder}; chmod 700 {folder}"):
        async with Lease.holding(folder):
            pass
    assert list(folder.iterdir()) == []


async def test_a_folder_of_somebody_else_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(Unusable, match="belongs to somebody else"):
        async with Lease.holding(tmp_path):
            pass
