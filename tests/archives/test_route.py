"""Whether a server is away: what counts as that, for how long, and that one finds out for all."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives.route import AWAY, FIRST_PAUSE_S, LONGEST_PAUSE_S, Route
from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)

GONE = Unreachable("gone")


async def until_asked_again(route: Route) -> float:
    """Return how long a route stays away, in seconds."""
    for seconds in range(1000):
        if not route.is_away:
            return float(seconds)
        await trio.sleep(1)
    raise AssertionError("it is never asked again")


@pytest.mark.expect_log("NBIA is away")
async def test_a_server_that_is_away_is_left_alone_longer_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route, pauses = Route("NBIA"), []
    for _ in range(7):
        assert not route.is_away
        with pytest.raises(Unreachable), route.asked():
            raise GONE
        pauses.append(await until_asked_again(route))
    assert pauses == [FIRST_PAUSE_S, 60, 120, 240, 480, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    with route.asked():
        pass
    assert route.is_trusted
    route.note(SlowDown("not so fast"))
    with pytest.raises(SlowDown, match="not so fast"):
        route.require()
    await trio.sleep(FIRST_PAUSE_S)
    route.require()


@pytest.mark.expect_log("NBIA is away")
async def test_many_that_fail_at_once_are_one_failure(autojump_clock: trio.testing.MockClock) -> None:
    route = Route("NBIA")
    for _ in range(5):
        route.note(GONE)
    assert await until_asked_again(route) == FIRST_PAUSE_S


@pytest.mark.expect_log("IDC is away")
async def test_it_may_be_left_alone_as_long_each_time(autojump_clock: trio.testing.MockClock) -> None:
    route = Route("IDC", first_pause_s=5, longest_pause_s=5)
    for _ in range(3):
        with pytest.raises(Unreachable), route.asked():
            raise GONE
        assert await until_asked_again(route) == 5


@pytest.mark.expect_log("NBIA is away")
@pytest.mark.parametrize("kind", AWAY, ids=lambda kind: kind.__name__)
async def test_who_asks_meanwhile_gets_the_same_error_and_is_told_when(
    kind: type[TciafsError], autojump_clock: trio.testing.MockClock
) -> None:
    route = Route("NBIA")
    assert route.remark == ""
    route.note(kind("no route"))
    await trio.sleep(20.5)
    assert route.remark == "NBIA is away, and asked again in 10 s: no route"
    with pytest.raises(TciafsError) as raised, route.asked():
        raise AssertionError("it is asked")
    assert type(raised.value) is kind
    assert str(raised.value) == "NBIA is not asked for a while (asked again in 10 s): no route"
    assert (raised.value.errno, raised.value.hint) == (kind.errno, kind.hint)


@pytest.mark.expect_log("NBIA is away")
async def test_one_finds_out_whether_it_is_back_and_others_do_not_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = Route("NBIA")
    route.note(GONE)
    await trio.sleep(FIRST_PAUSE_S)
    with route.asked():
        assert route.is_away
        assert "being asked again just now" in route.remark
        with pytest.raises(Unreachable, match=r"\(being asked again just now\): gone"), route.asked():
            raise AssertionError("it is asked twice")
        with route.used():
            pass
        # A first answer is enough, however long the rest of the question takes.
        route.require()
        with route.asked():
            pass


@pytest.mark.expect_log("NBIA is away")
async def test_who_gives_up_finding_out_lets_the_next_one(autojump_clock: trio.testing.MockClock) -> None:
    route = Route("NBIA")
    route.note(GONE)
    await trio.sleep(FIRST_PAUSE_S)
    with trio.CancelScope() as scope, route.asked():
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not route.is_trusted
    with pytest.raises(SeriesDamaged), route.asked():
        raise SeriesDamaged("says nothing")
    assert not route.is_away
    with route.asked():
        pass
    assert route.is_trusted


@pytest.mark.expect_log("NBIA is away")
async def test_an_answer_to_what_was_asked_before_is_no_sign_that_it_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = Route("NBIA")
    with route.used():
        await trio.sleep(1)
        route.note(GONE)
    assert route.is_away
    with route.used():  # by who does not care
        pass
    assert not route.is_away


async def test_a_refusal_says_nothing_of_the_server() -> None:
    route = Route("NBIA")
    for error in (AccessDenied("no"), UnreadableAnswer("what?"), SeriesDamaged("short")):
        with pytest.raises(type(error)), route.used():
            raise error
    assert not route.is_away


async def test_who_waits_is_told_after_his_patience(
    autojump_clock: trio.testing.MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("NBIA is away")
    route = Route("NBIA")
    with pytest.raises(DeadlinePassed, match="NBIA did not answer within 3 s"), route.used(3):
        await trio.sleep_forever()
    assert route.is_away


@pytest.mark.expect_log("NBIA is away")
@given(st.lists(st.tuples(st.sampled_from([0, 7, 31, 700]), st.integers(1, 4), st.booleans()), max_size=20))
def test_a_dead_server_is_asked_once_a_while(steps: list[tuple[float, int, bool]]) -> None:
    trio.run(_ask_in_turns, steps, clock=trio.testing.MockClock(autojump_threshold=0))


async def _ask_in_turns(steps: list[tuple[float, int, bool]]) -> None:
    """Have some ask at once, one step after the other, of a server that is there or not."""
    route, failures = Route("NBIA"), list[float]()

    async def ask() -> None:
        try:
            with route.asked():
                asked.append(trio.current_time())
                await trio.sleep(1)
                if not is_there:
                    raise GONE
        except Unreachable:
            pass

    for pause_s, askers, is_there in [(0, 1, False), *steps]:
        await trio.sleep(pause_s)
        asked = list[float]()
        was_away, was_trusted = route.is_away, route.is_trusted
        async with trio.open_nursery() as nursery:
            for _ in range(askers):
                nursery.start_soon(ask)
        assert len(asked) == (0 if was_away else askers if was_trusted else 1)
        if asked and is_there:
            assert route.is_trusted
            failures.clear()
        if asked and not is_there:
            failures.append(asked[-1])
            assert route.is_away
    assert all(later - earlier >= FIRST_PAUSE_S for earlier, later in pairwise(failures))
