"""The image for containers: its entry point as first process of a namespace, ended as by `docker stop`.

Such a process ignores every signal that it does not handle, and nobody else collects children or unmounts.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.behaviour.retriever import expected_series
from tests.mounting import marked_environment, processes_marked, until
from tests.sample.running import RunningSample, running_sample

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = REPOSITORY / "docs/containers/Dockerfile"
WAIT_S = 60.0

# A host whose folder is bound into the container with propagation (`-v FOLDER:FOLDER:rshared`).
HOST = """
set -e
mount --bind "$0" "$0"
mount --make-shared "$0"
code=0
unshare --pid --fork --kill-child --mount-proc --propagation unchanged -- "$@" || code=$?
! grep -F " $0/" /proc/self/mountinfo || code=99
exit $code
"""

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="makes namespaces: root, /dev/fuse"
    ),
]


@dataclass(frozen=True, slots=True)
class Container:
    """Namespaces with a mount in them: the process that waits for their end outside, the first one inside."""

    host: "subprocess.Popen[str]"
    first: int
    mark: str

    def start(self, *command: str | Path) -> "subprocess.Popen[bytes]":
        """Start a command inside, as `docker exec` does."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--"]
        return subprocess.Popen([*enter, *map(str, command)], stdout=subprocess.PIPE)


def instruction(name: str) -> list[str]:
    """Return the words of an instruction of the Dockerfile that has them as JSON."""
    lines = DOCKERFILE.read_text("utf-8").splitlines()
    (found,) = (line for line in lines if line.startswith(f"{name} "))
    words: list[str] = json.loads(found.removeprefix(name))
    return words


@contextmanager
def container(sample: RunningSample, folder: Path) -> Iterator[Container]:
    """Run the image's command; nothing of it may be left."""
    mount_point, tools = folder / "shared" / "tcia", folder / "bin"
    mount_point.mkdir(parents=True)
    tools.mkdir()
    (tools / "tciafs").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tciafs "$@"\n')
    (tools / "tciafs").chmod(0o755)
    mark = f"container-{folder.name}-{os.getpid()}"
    environment = marked_environment(mark) | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "TCIAFS_URL": sample.url,
        "TCIAFS_CACHE_DIR": str(folder / "cache"),
        "TCIAFS_AGREE_TO_POLICY": "yes",
    }
    words = [str(mount_point) if word == "/tcia" else word for word in instruction("CMD")]
    entry = [*instruction("ENTRYPOINT"), *words]
    command = ["unshare", "--mount", "sh", "-c", HOST, str(mount_point.parent), *entry]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as host:
        try:
            assert host.stdout is not None
            assert "collections" in host.stdout.readline()
            (first,) = (pid for pid in processes_marked(mark) if is_first_in_namespace(pid))
            yield Container(host, first, mark)
        finally:
            for pid in processes_marked(mark):
                os.kill(pid, signal.SIGKILL)


def is_first_in_namespace(pid: int) -> bool:
    """Return whether a process is number 1 in a namespace of its own; see proc(5), NSpid."""
    status = Path(f"/proc/{pid}/status").read_text()
    (numbers,) = (line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(numbers) > 1 and numbers[-1] == "1"


def test_docker_stop_unmounts_and_ends_in_the_middle_of_a_download(tmp_path: Path) -> None:
    with running_sample() as sample:
        series = next(each for each in expected_series(sample, "Phantom-Head") if each.image_count > 3)
        sample.pace(series.uid, 2)
        with container(sample, tmp_path) as running:
            images = tmp_path / "shared" / "tcia" / series.path
            with running.start("cat", images / "1-01.dcm", images / "1-50.dcm") as reader:
                assert reader.stdout is not None
                assert reader.stdout.read(1)
                assert " fuse.tciafs " in Path(f"/proc/{running.host.pid}/mountinfo").read_text()
                os.kill(running.first, signal.SIGTERM)
                assert running.host.wait(WAIT_S) == 0, "99: it ended and left the mount behind"
                reader.stdout.read()
            assert reader.returncode != 0
            until(lambda: not processes_marked(running.mark), "the end of the container's processes")
        assert list((tmp_path / "cache" / "incoming").glob("*/*")) == []
