"""The two kernel settings: where they are written, and that failing to write them is harmless."""

import logging
import os
from pathlib import Path

import pytest

from tciafs.filesystem.tuning import CONGESTION_THRESHOLD, MAX_BACKGROUND, READ_AHEAD_KB, tune


def test_the_settings_are_those_of_the_mount_with_that_device_number(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, str] = {}

    def note(path: Path, text: str) -> int:
        written[str(path)] = text
        return len(text)

    monkeypatch.setattr(Path, "write_text", note)
    tune(os.makedev(0, 300_000))
    assert written == {
        "/sys/fs/fuse/connections/300000/max_background": f"{MAX_BACKGROUND}\n",
        "/sys/fs/fuse/connections/300000/congestion_threshold": f"{CONGESTION_THRESHOLD}\n",
        "/sys/class/bdi/0:300000/read_ahead_kb": f"{READ_AHEAD_KB}\n",
    }


def test_the_congestion_threshold_is_three_quarters_as_in_the_kernel() -> None:
    assert CONGESTION_THRESHOLD * 4 == MAX_BACKGROUND * 3


def test_a_kernel_that_does_not_let_us_is_only_worth_a_line_for_debugging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="tciafs")
    tune(os.makedev(0, 1_048_575))
    assert [record.levelno for record in caplog.records] == [logging.DEBUG] * 3
    assert "No such file or directory" in caplog.text
