"""The command: what it prints, what its options change, how it ends."""

import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.sample.running import running_sample

SOURCES = Path(__file__).resolve().parents[2] / "tciafs" / "sample"


def test_it_imports_nothing_of_tciafs_but_itself() -> None:
    ours = re.compile(r"^\s*(?:from|import)\s+(?:\.\.|tciafs\b(?!\.sample))", re.MULTILINE)
    for path in SOURCES.glob("*.py"):
        assert not ours.search(path.read_text()), path


def test_only_one_version_can_be_offered() -> None:
    with running_sample("--api", "v1") as sample:
        assert sample.get("v1/getCollectionValues").status_code == 200
        assert sample.get("v4/getCollectionValues").status_code == 404


def test_an_older_server_does_not_know_checksums() -> None:
    with running_sample("--no-md5") as sample:
        uid = sample.series_uid("Phantom-Echo-NC")
        answer = sample.get("v4/getImage", SeriesInstanceUID=uid, IncludeMD5="Yes")
        assert answer.status_code == 400
        assert sample.get("v4/getImage", SeriesInstanceUID=uid).status_code == 200
        answer = sample.get("v1/getImage", SeriesInstanceUID=uid, IncludeMD5="Yes")
        assert answer.status_code == 200


def test_crowds_are_listed_and_downloaded() -> None:
    options = ("--many-patients", "300", "--many-series", "25", "--bench-slices", "2", "--bench-series", "3")
    with running_sample(*options) as sample:
        assert len(sample.rows("v4/getPatient", Collection="MANY")) == 300
        series = sample.rows("v4/getSeries", Collection="MANYSERIES")
        assert {row["ImageCount"] for row in series} == {3, 4, 5, 6, 7, 8}
        bench = sample.rows("v4/getSeries", Collection="BENCH")
        assert [row["ImageCount"] for row in bench] == [2, 2, 2]
        for row in (*series, *bench):
            uid = row["SeriesInstanceUID"]
            assert sample.get("v4/getImage", SeriesInstanceUID=uid).status_code == 200


def test_a_huge_series_is_what_its_row_says() -> None:
    images = 3000
    with running_sample("--huge-images", str(images)) as sample:
        (row,) = sample.rows("v4/getSeries", Collection="HUGE")
        uid = row["SeriesInstanceUID"]
        wish = {"SeriesInstanceUID": uid, "NewFileNames": "Yes", "IncludeMD5": "Yes"}
        answer = sample.get("v4/getImage", **wish)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if name.endswith(".dcm")}
        lines = archive.read("md5hashes.csv").decode().splitlines()[1:]
    assert len(contents) == row["ImageCount"] == images
    assert sum(map(len, contents.values())) == row["FileSize"]
    digests = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    assert dict(line.split(",") for line in lines) == digests
    assert len(set(digests.values())) == images
    assert max(map(len, contents.values())) < 2500


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tciafs.sample", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(number: signal.Signals) -> None:
    with start() as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.communicate() == ("", "")


def test_the_end_of_its_input_ends_it_although_a_client_does_not_read() -> None:
    with running_sample("--bench-slices", "100") as sample:
        address = httpx.URL(sample.url)
        uid = sample.series_uid("BENCH")
        with socket.create_connection((address.host, address.port or 0)) as client:
            path = f"{address.path}/v4/getImage?SeriesInstanceUID={uid}"
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: sample\r\n\r\n".encode())
            assert client.recv(1) == b"H"
            sample.stop()
        assert sample.process.returncode == 0


def test_without_the_option_the_end_of_input_is_nothing() -> None:
    with start() as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        process.stdin.close()
        process.stdin = None
        assert httpx.get(url + "/v4/getCollectionValues", trust_env=False).status_code == 200
        os.kill(process.pid, signal.SIGTERM)
        process.communicate()


def test_the_chunk_size_is_what_was_asked_for() -> None:
    with running_sample("--chunk-size", "1000") as sample:
        address = httpx.URL(sample.url)
        uid = sample.series_uid("Phantom-Echo-NC")
        with socket.create_connection((address.host, address.port or 0)) as client:
            path = f"{address.path}/v4/getImage?SeriesInstanceUID={uid}"
            head = f"GET {path} HTTP/1.1\r\nHost: sample\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode())
            with client.makefile("rb") as answer:
                while answer.readline() != b"\r\n":
                    pass
                assert int(answer.readline(), 16) == 1000
