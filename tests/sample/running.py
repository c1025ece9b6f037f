"""The sample archive as a separate process, for tests: started, asked, disturbed, ended.

`running_sample(*options)` is the only entry. The process ends with the block, also when the test
was killed, because it waits for the end of its standard input. All calls block, on loopback only.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import httpx

__all__ = ["RunningSample", "SeenRequest", "running_sample"]

END_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request that the server received."""

    method: str
    path: str
    query: Mapping[str, str]
    user_agent: str
    sent_bytes: int

    @property
    def endpoint(self) -> str:
        """The last part of the path, for example getImage."""
        return self.path.rpartition("/")[2]


class RunningSample:
    """A server process; `url` is what --url takes, `process` for tests that hurt it."""

    def __init__(self, url: str, process: subprocess.Popen[str], client: httpx.Client) -> None:
        self.url = url
        self.process = process
        self._client = client
        self._control = str(httpx.URL(url).copy_with(path="/_sample/"))

    def get(self, path: str, /, **query: str) -> httpx.Response:
        """Return the answer to GET `path` (below the URL, for example v4/getSeries)."""
        return self._client.get(f"{self.url}/{path}", params=query)

    def post(self, path: str, /, **form: str) -> httpx.Response:
        """Return the answer to a form sent to `path`."""
        return self._client.post(f"{self.url}/{path}", data=form)

    def rows(self, path: str, /, **query: str) -> list[dict[str, Any]]:
        """Return the rows of a listing; an empty body is no rows."""
        answer = self.get(path, **query).raise_for_status()
        found: list[dict[str, Any]] = answer.json() if answer.content else []
        return found

    def metadata(self, *series: str) -> list[dict[str, Any]]:
        """Return the rows of v4/getSeriesMetadata, which is asked by a form."""
        form = {"list": ",".join(series), "format": "json"}
        answer = self._client.post(f"{self.url}/v4/getSeriesMetadata", data=form).raise_for_status()
        found: list[dict[str, Any]] = answer.json() if answer.content else []
        return found

    def series_uid(self, collection: str, **columns: object) -> str:
        """Return the UID of the one series of a collection whose columns are these."""
        rows = self.rows("v4/getSeries", Collection=collection)
        (found,) = (row for row in rows if columns.items() <= row.items())
        return str(found["SeriesInstanceUID"])

    def requests(self, endpoint: str | None = None) -> list[SeenRequest]:
        """Return what the archive was asked so far, or what one endpoint was."""
        answer = self._client.get(self._control + "requests").raise_for_status()
        seen = [SeenRequest(**request) for request in answer.json()]
        return [request for request in seen if endpoint in (None, request.endpoint)]

    def tally(self) -> Counter[str]:
        """Return how often each endpoint was asked so far; it counts also what `requests` has forgotten."""
        return Counter(self._client.get(self._control + "tally").raise_for_status().json())

    def forget_requests(self) -> None:
        """Begin a new record."""
        self._client.delete(self._control + "requests").raise_for_status()

    def fault(
        self,
        kind: str,
        path: str = "getImage",
        *,
        series: str | None = None,
        times: int = 1,
        **details: Any,
    ) -> None:
        """Let the next `times` requests whose path ends in `path` go wrong.

        Kinds: status (code, body, retry_after, headers), hang, cut, corrupt, stall (after_bytes), drip
        (after_bytes, pace_s), short and short_annotations (images), html, truncate_json, empty, claim
        (columns), wrong_md5, cut_annotation, annotation_name (name).
        """
        fault = {"kind": kind, "path": path, "series": series, "times": times, **details}
        self._client.post(self._control + "faults", json=fault).raise_for_status()

    def clear_faults(self) -> None:
        """Let everything be right again."""
        self._client.delete(self._control + "faults").raise_for_status()

    def pace(self, series: str, members: int | None) -> None:
        """Hold the downloads of a series after so many images; None lets them run on."""
        wish = {"series": series, "members": members}
        self._client.post(self._control + "pace", json=wish).raise_for_status()

    def withdraw(self, series: str) -> None:
        """Let a series be gone from all listings and refused for download."""
        wish = {"series": series, "columns": None}
        self._client.post(self._control + "series", json=wish).raise_for_status()

    def revise(self, series: str, **columns: str | int | None) -> None:
        """Change what v4/getSeries lists of a series, and its images with it: a new version.

        Columns: Modality, ProtocolName, SeriesDate, SeriesDescription, BodyPartExamined, SeriesNumber,
        Manufacturer, ManufacturerModelName, SoftwareVersions, DataDescriptionURI,
        MaxSubmissionTimestamp, DateReleased (else it is today, for getUpdatedSeries), ImageCount (the
        first so many images; more only of a series that an index lists); and StudyDate, StudyDesc,
        StudyID, which change in all series of the study. Days are written 12-31-2024; None is null.
        The images of --sample-dir are files and stay as they are.
        """
        wish = {"series": series, "columns": columns}
        self._client.post(self._control + "series", json=wish).raise_for_status()

    def share_cart(self, name: str, *series: str) -> None:
        """Let there be a shared cart of these series."""
        self._client.post(self._control + "carts", json={"name": name, "series": series}).raise_for_status()

    def restore(self) -> None:
        """Let everything that was withdrawn or revised be as it was at the start."""
        self._client.delete(self._control + "series").raise_for_status()

    def expire_tokens(self) -> None:
        """Make every access token stale."""
        self._client.delete(self._control + "tokens").raise_for_status()

    def stop(self) -> None:
        """End the server now, as if its machine had gone away."""
        _end(self.process)


@contextmanager
def running_sample(*options: str) -> Iterator[RunningSample]:
    """Run the sample archive with these command line options for the length of the block."""
    command = [sys.executable, "-m", "tciafs.sample", "--until-eof", *options]
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        try:
            url = _first_line(process, complaints)
            with httpx.Client(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
                yield RunningSample(url, process, client)
        finally:
            _end(process)


def _first_line(process: subprocess.Popen[str], complaints: IO[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.startswith("http://127.0.0.1:"):
        _end(process)
        complaints.seek(0)
        raise RuntimeError(f"the sample archive did not start: {complaints.read()}")
    return line


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
