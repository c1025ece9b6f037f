"""The error vocabulary: each cause has the errno and the exit code of the contract, and a hint."""

import errno
import inspect
import re

import pytest

from tciafs import errors
from tciafs.archives.http.errors import RequestRejected
from tciafs.errors import SlowDown, TciafsError, Unreachable, error_named

KINDS = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, TciafsError) and each.__module__ == errors.__name__
]

# The table of causes in docs/semantics.md.
ERRNO_BY_CAUSE = {
    "NoSuchName": errno.ENOENT,
    "ReadOnly": errno.EROFS,
    "AccessDenied": errno.EACCES,
    "Unreachable": errno.EHOSTUNREACH,
    "Offline": errno.EHOSTUNREACH,
    "DeadlinePassed": errno.ETIMEDOUT,
    "SlowDown": errno.EBUSY,
    "UnreadableAnswer": errno.EPROTO,
    "SeriesDamaged": errno.EIO,
    "NoSpace": errno.ENOSPC,
    "Refused": errno.EPERM,
    "Interrupted": errno.EINTR,
}
EXIT_CODES = {"Misuse": 2, "NotAgreed": 2, "Unusable": 3, "AccessDenied": 4}


@pytest.mark.parametrize(("name", "expected"), ERRNO_BY_CAUSE.items())
def test_each_cause_has_the_errno_of_the_contract(name: str, expected: int) -> None:
    assert error_named(name, "").errno == expected


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_has_the_exit_code_of_the_contract(kind: type[TciafsError]) -> None:
    assert kind.exit_code == EXIT_CODES.get(kind.__name__, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_is_public_and_its_hint_is_a_sentence_or_nothing(kind: type[TciafsError]) -> None:
    assert kind.__name__ in errors.__all__
    assert re.fullmatch(r"[A-Z].*\.|", kind.hint)
    assert inspect.getdoc(kind)


def test_an_error_of_no_special_kind_is_an_io_error() -> None:
    assert (TciafsError.errno, TciafsError.exit_code) == (errno.EIO, 1)


def test_asking_again_soon_helps_only_where_the_cause_may_pass() -> None:
    may_pass = {"Unreachable", "DeadlinePassed", "SlowDown", "UnreadableAnswer", "SeriesDamaged"}
    assert {kind.__name__ for kind in KINDS if kind.retryable} == may_pass


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_a_pipe_as_its_name_and_its_sentence(kind: type[TciafsError]) -> None:
    error = error_named(kind.__name__, "what happened")
    assert type(error) is kind
    assert str(error) == "what happened"


@pytest.mark.parametrize(
    "name", ["", "Nonsense", "errno", "ClassVar", "error_named", "__builtins__", "Exception"]
)
def test_a_name_that_is_no_error_of_ours_gives_a_plain_one(name: str) -> None:
    error = error_named(name, "what happened")
    assert type(error) is TciafsError
    assert str(error) == "what happened"


def test_a_server_that_asks_for_a_pause_says_how_long() -> None:
    assert SlowDown("wait", 30.0).retry_after_s == 30.0
    assert SlowDown("wait").retry_after_s is None


@pytest.mark.parametrize(
    "error", [Unreachable("away"), SlowDown("busy", 3.0), RequestRejected("no", 404, "what?")], ids=str
)
def test_a_bare_error_says_the_same_and_holds_nothing_of_where_it_came_from(error: TciafsError) -> None:
    error.retryable = not error.retryable
    try:
        raise error from ValueError("the cause")
    except TciafsError as caught:
        bare = caught.bare()
    assert (type(bare), str(bare), vars(bare)) == (type(error), str(error), vars(error))
    assert (bare.__traceback__, bare.__cause__, bare.__context__) == (None, None, None)
    assert error.__cause__ is not None
