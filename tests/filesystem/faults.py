"""What a server or a line is known to do wrong, one row each: how it is injected, and what must come of it.

Values only; tests/filesystem/test_mount_faults.py has each of them happen to a real mount. `MIDDLE` stands
for the middle of an image in the series' ZIP.
"""

import datetime as dt
import email.utils
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LISTING_FAULTS", "MIDDLE", "SERIES_FAULTS", "Fault"]

MIDDLE = "the middle of an image"
ALWAYS = 99
NOT_GRANTED = "The user has not been granted the access to image with given SeriesInstanceUID"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and what a program on the mount gets: an errno, or what it asked for (`errno` 0).

    `injected` is what the sample archive is told, for so many `times`; `says` is part of the sentence that
    the user finds; the archive is asked `requests` times at most; `first` is the program that meets it. With
    `retries` the mount tries again, as one does by default.
    """

    what: str
    injected: Mapping[str, Any]
    errno: int
    says: str = ""
    requests: int = 1
    first: str = "ls"
    times: int = ALWAYS
    retries: bool = False

    @property
    def how(self) -> str:
        """How it is injected, in a line."""
        details = ", ".join(f"{name} {value!r}" for name, value in self.injected.items() if name != "kind")
        often = "" if self.times == ALWAYS else f", {self.times}x"
        return f"{self.injected['kind']}{': ' if details else ''}{details}{often}"


def _status(code: int, **more: Any) -> Mapping[str, Any]:
    return {"kind": "status", "code": code, **more}


def _answer(body: str, **headers: str) -> Mapping[str, Any]:
    return _status(200, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def _redirect(target: str) -> Mapping[str, Any]:
    return _status(302, headers={"Location": target})


def _http_date(in_s: float) -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=in_s)
    return email.utils.format_datetime(moment, usegmt=True)


REFUSED, UNREACHABLE, LATE = errno.EACCES, errno.EHOSTUNREACH, errno.ETIMEDOUT
BUSY, UNREADABLE, DAMAGED = errno.EBUSY, errno.EPROTO, errno.EIO

SERIES_FAULTS = [
    Fault("series not permitted", _status(400, body=NOT_GRANTED), REFUSED, "status 400"),
    Fault("login refused", _status(401), REFUSED, "status 401"),
    Fault("forbidden", _status(403), REFUSED, "status 403", first="cat"),
    Fault("no such address", _status(404), UNREADABLE, "status 404"),
    Fault("slow down", _status(429), BUSY, "status 429"),
    Fault("slow down for two hours", _status(429, retry_after="7200"), BUSY, "status 429", retries=True),
    Fault("not available, with a wish", _status(503, retry_after="7200"), BUSY, "status 503", retries=True),
    Fault("not available", _status(503), UNREACHABLE, "status 503"),
    Fault(
        "server error", _status(500, body="java.lang.NullPointerException"), UNREACHABLE, "status 500: java"
    ),
    Fault("gateway without a server", _status(502), UNREACHABLE, "status 502", first="cp"),
    Fault(
        "connection cut before the body",
        {"kind": "cut", "after_bytes": 0},
        UNREACHABLE,
        "broke off its answer",
    ),
    Fault(
        "connection cut in mid-ZIP",
        {"kind": "cut", "after_bytes": MIDDLE},
        UNREACHABLE,
        "broke off its answer",
    ),
    Fault(
        "less than Content-Length said",
        _answer("PK\x03\x04", Content_Length="9999"),
        UNREACHABLE,
        "broke off",
    ),
    Fault("corrupt member", {"kind": "corrupt", "after_bytes": MIDDLE}, DAMAGED, "came damaged"),
    Fault("valid ZIP that lacks an image", {"kind": "short", "images": 1}, DAMAGED, " of "),
    Fault("wrong MD5", {"kind": "wrong_md5"}, DAMAGED, "does not have the MD5"),
    Fault("status 200 and nothing", {"kind": "empty"}, DAMAGED, "an empty answer"),
    Fault("status 204", _status(204), DAMAGED, "an empty answer"),
    Fault("web page with status 200", {"kind": "html"}, UNREADABLE, "a web page"),
    Fault("web page, met by cat", {"kind": "html"}, UNREADABLE, "a web page", first="cat"),
    Fault(
        "an error as JSON, status 200", _answer('{"error": "quota"}'), UNREADABLE, "something that is no ZIP"
    ),
    Fault("ZIP that is garbage behind its start", _answer("PK\x03\x04" + "x" * 99), UNREADABLE, ""),
    Fault("said to be gzip, and is not", _answer("x" * 99, Content_Encoding="gzip"), UNREADABLE, ""),
    Fault("hang before the headers", {"kind": "hang"}, LATE, "stopped sending"),
    Fault("hang, met by cat", {"kind": "hang"}, LATE, "stopped sending", first="cat"),
    Fault("stall in mid-body", {"kind": "stall", "after_bytes": MIDDLE}, LATE, "stopped sending"),
    Fault(
        "drip of one byte in half a second",
        {"kind": "drip", "after_bytes": MIDDLE, "pace_s": 0.5},
        LATE,
        "sends",
    ),
    Fault("redirect in circles", _redirect("?"), UNREADABLE, "in circles", requests=6),
    Fault("redirect to no web address", _redirect("ftp://example.org/"), UNREADABLE, "no web address"),
    Fault("server error, then good", _status(500), 0, requests=3, times=2, retries=True),
    Fault(
        "slow down for a second, then good",
        _status(429, retry_after="1"),
        0,
        requests=2,
        times=1,
        retries=True,
    ),
    Fault(
        "not available until a date",
        _status(503, retry_after=_http_date(1)),
        0,
        requests=2,
        times=1,
        retries=True,
    ),
    Fault("cut once", {"kind": "cut", "after_bytes": MIDDLE}, 0, requests=2, times=1, retries=True),
    Fault("corrupt once", {"kind": "corrupt", "after_bytes": MIDDLE}, 0, requests=2, times=1, retries=True),
    Fault("short once", {"kind": "short", "images": 1}, 0, requests=2, times=1, retries=True),
    Fault(
        "stall once",
        {"kind": "stall", "after_bytes": MIDDLE},
        0,
        requests=2,
        times=1,
        retries=True,
        first="cat",
    ),
    Fault("web page once", {"kind": "html"}, 0, requests=2, times=1, retries=True, first="cp"),
]
"""What happens to the download of a series."""

LISTING_FAULTS = [
    Fault("login refused", _status(401), REFUSED, "status 401"),
    Fault("no such address", _status(404), UNREADABLE, "status 404"),
    Fault("slow down", _status(429), BUSY, "status 429"),
    Fault("server error", _status(500), UNREACHABLE, "status 500"),
    Fault("not available for two hours", _status(503, retry_after="7200"), BUSY, "status 503"),
    Fault("web page with status 200", {"kind": "html"}, UNREADABLE, "unreadably"),
    Fault("truncated JSON", {"kind": "truncate_json"}, UNREADABLE, "unreadably"),
    Fault("invalid JSON", _answer("[{]"), UNREADABLE, "unreadably"),
    Fault("JSON of something else", _answer('["a", 1]'), UNREADABLE, "unreadably"),
    Fault("connection cut", {"kind": "cut", "after_bytes": 20}, UNREACHABLE, "broke off its answer"),
    Fault("less than Content-Length said", _answer("[", Content_Length="9999"), UNREACHABLE, "broke off"),
    Fault(
        "said to be gzip, and is not",
        _answer("x" * 99, Content_Encoding="gzip"),
        UNREADABLE,
        "compressed wrongly",
    ),
    Fault(
        "compressed in an unknown way", _answer("x", Content_Encoding="br"), UNREADABLE, "compressed by 'br'"
    ),
    Fault("hang before the headers", {"kind": "hang"}, LATE, "getPatient"),
    Fault("stall in mid-body", {"kind": "stall", "after_bytes": 20}, LATE, "getPatient"),
    Fault("drip of one byte in half a second", {"kind": "drip", "pace_s": 0.5}, LATE, "getPatient"),
    Fault("redirect in circles", _redirect("?"), UNREADABLE, "in circles", requests=6),
    Fault("redirect to no web address", _redirect("ftp://example.org/"), UNREADABLE, "no web address"),
]
"""What happens to the question for the patients of a collection."""
