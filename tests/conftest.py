"""What every test gets: hypothesis without a clock, a watch on the log, the shared material."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.sample.running import RunningSample

REPOSITORY = Path(__file__).resolve().parents[1]

EXPECT_LOG = """\
expect_log(pattern): the test makes tciafs log a warning or error on purpose; at least one record matches the
pattern, searched in "LEVEL logger: message". Any other record of WARNING or above fails the test."""

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", " ".join(EXPECT_LOG.splitlines()))


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are processors: a test that waits for a server or a disk leaves one idle."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first whose tests mount most often, then those with most tests.

    A mount takes seconds, other tests take hundredths. Files go to whoever is idle, so what is left for the
    end should be short. The order within a file stays.
    """
    tests = Counter(item.path for item in items)
    mounts = Counter(item.path for item in items if item.get_closest_marker("mount"))
    items.sort(key=lambda item: (-mounts[item.path], -tests[item.path], item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape captured text that is no Unicode: reports go between processes as UTF-8 (pytest-xdist)."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


class LogWatch(logging.Handler):
    """Keeps what tciafs logs at WARNING and above, and the patterns that a test has declared."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: list[str] = []
        self._expected: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._seen.append(text)

    def expect(self, pattern: str) -> None:
        """Declare that at least one record matches; see EXPECT_LOG."""
        self._expected.append(pattern)

    def complaints(self) -> list[str]:
        """Return what was logged and not declared, and what was declared and not logged."""
        undeclared = [
            f"logged, but not declared with expect_log: {text}"
            for text in self._seen
            if not any(re.search(pattern, text) for pattern in self._expected)
        ]
        absent = [
            f"declared with expect_log, but not logged: {pattern}"
            for pattern in self._expected
            if not any(re.search(pattern, text) for text in self._seen)
        ]
        return undeclared + absent


@pytest.fixture(autouse=True)
def _log_watch(request: pytest.FixtureRequest) -> Iterator[LogWatch]:
    watch, log = LogWatch(), logging.getLogger("tciafs")
    for mark in request.node.iter_markers("expect_log"):
        watch.expect(mark.args[0])
    log.addHandler(watch)
    try:
        yield watch
    finally:
        log.removeHandler(watch)
    if complaints := watch.complaints():
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def expect_log(_log_watch: LogWatch) -> Callable[[str], None]:
    """Declare in the course of a test what the mark of the same name declares for all of it."""
    return _log_watch.expect


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real series, manifests and names; it is not part of the repository."""
    folder = Path(os.environ.get("TCIAFS_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip("the shared material is absent: neither ../shared nor $TCIAFS_SHARED is a folder")
    return folder.resolve()


@pytest.fixture(scope="module")
def sample() -> Iterator["RunningSample"]:
    """The sample archive as a server on loopback, with nothing added; who wants more has one of his own."""
    from tests.sample.running import running_sample  # only the half of the tests that asks it needs a client

    with running_sample() as sample:
        yield sample


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    """Give the logging of this process back as it was."""
    root, ours, stamina = (logging.getLogger(name) for name in ("", "tciafs", "stamina"))
    before = list(root.handlers), root.level, ours.level, stamina.level
    yield
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers[:] = before[0]
    for logger, level in zip((root, ours, stamina), before[1:], strict=True):
        logger.setLevel(level)
