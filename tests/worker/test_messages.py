"""What daemon and worker say to each other arrives as it was said, however the pipe cuts it."""

import datetime as dt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.archive import NbiaConfig
from tciafs.model import Series
from tciafs.store.layout import PackedImage
from tciafs.worker.messages import (
    LENGTH,
    MAX_MESSAGE_BYTES,
    Arrived,
    Failed,
    Fetch,
    Finished,
    Frames,
    Progress,
    Report,
    TokenGiven,
    TokenWanted,
    Verified,
    framed,
)

IMAGE = PackedImage("1-1.dcm", 0, 2**40, 2**32 - 1)
SERIES = Series("Lung", "P\u00f6", "1.2", "1.2.3", "CT", 2.5, image_count=3, released=dt.date(2024, 2, 29))
REPORTS: list[Report] = [
    Arrived(IMAGE),
    Progress(2**50),
    Verified(("crc32", "md5")),
    Finished(),
    Failed("NoSpace", "the disk is full"),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_arrives_as_it_was_told(report: Report) -> None:
    (body,) = Frames().feed(framed(report))
    assert msgspec.msgpack.decode(body, type=Report) == report


def test_tokens_are_shown_to_nobody() -> None:
    assert "s3cret" not in repr(TokenGiven("s3cret")) + repr(TokenWanted("s3cret"))


def test_a_command_arrives_as_it_was_given() -> None:
    config = NbiaConfig("http://127.0.0.1/", "v1", 2, HttpLimits(connect_timeout_s=3), "agent/1")
    command = Fetch(SERIES, "/cache/incoming/1", config, 4, 0.5, 1000)
    (body,) = Frames().feed(framed(command))
    assert msgspec.msgpack.decode(body, type=Fetch) == command


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 20), min_size=1, max_size=50))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    bodies: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(LENGTH.pack(len(body)) + body for body in bodies)
    frames = Frames()
    out: list[bytes] = []
    place = number = 0
    while place < len(stream):
        size = cuts[number % len(cuts)]
        out += frames.feed(stream[place : place + size])
        place, number = place + size, number + 1
    assert out == bodies


def test_what_follows_the_last_body_taken_is_kept() -> None:
    frames = Frames()
    assert next(frames.feed(LENGTH.pack(1) + b"a" + LENGTH.pack(1) + b"b")) == b"a"
    assert list(frames.feed(b"")) == [b"b"]


def test_an_absurd_length_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="a message of 16777217 bytes"):
        list(Frames().feed(LENGTH.pack(MAX_MESSAGE_BYTES + 1)))
