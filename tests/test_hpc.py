"""The job for clusters, run by bash in Slurm's place: what it fetches, and that it unmounts on every way out.

Tried by hand with Slurm itself, also cancelled and out of time.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounting import marked_environment, processes_marked, run, until
from tests.sample.running import running_sample

REPOSITORY = Path(__file__).resolve().parents[1]
JOB = REPOSITORY / "docs/hpc/tciafs.sbatch"
WAIT_S = 60.0

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the one series of the sample's echo collection."""
    with running_sample() as sample:
        (series,) = sample.rows("v4/getSeries", Collection="Phantom-Echo-NC")
    file = tmp_path_factory.mktemp("manifest") / "cohort.tcia"
    file.write_text(f"manifestVersion=3.0\nListOfSeriesToDownload=\n{series['SeriesInstanceUID']}\n")
    return file


@contextmanager
def job(
    manifest: Path, folder: Path, *command: str, read_first: str = ""
) -> "Iterator[subprocess.Popen[str]]":
    """Run a job in a folder of its own; nothing of it may be left, whatever became of it.

    `read_first` is what its shell obeys before the script.
    """
    temporary, tools = folder / "tmp", folder / "bin"
    temporary.mkdir()
    tools.mkdir()
    (tools / "tciafs").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tciafs "$@"\n')
    (tools / "tciafs").chmod(0o755)
    mark = f"job-{folder.name}-{os.getpid()}"
    environment = marked_environment(mark) | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "SLURM_TMPDIR": str(temporary),
        "SLURM_JOB_ID": "7",
        "TCIAFS_ARCHIVE": "sample",
        "XDG_STATE_HOME": str(folder / "state"),
        "BASH_ENV": str(folder / "read_first"),
    }
    (folder / "read_first").write_text(read_first)
    words = ["bash", str(JOB), str(manifest), *command]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.wait(WAIT_S)
    until(lambda: not processes_marked(mark), "the end of the job's processes")
    assert list(temporary.iterdir()) == []
    assert str(temporary) not in Path("/proc/self/mountinfo").read_text()


def test_a_job_works_on_the_series_of_its_manifest(manifest: Path, tmp_path: Path) -> None:
    with job(manifest, tmp_path, "sh", "-c", 'cd "$TCIA" && find . -name "*.dcm" | wc -l; ls') as running:
        said, _ = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0
    assert "1 series fetched" in said
    assert "Phantom-Echo-NC" in said.splitlines()
    assert not {"Phantom-Head", "0"}.intersection(said.splitlines())


def test_a_job_ends_as_its_command_does(manifest: Path, tmp_path: Path) -> None:
    with job(manifest, tmp_path, "sh", "-c", "exit 7") as running:
        running.communicate(timeout=WAIT_S)
    assert running.returncode == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_job_that_is_told_to_end_takes_its_command_along(
    number: signal.Signals, code: int, manifest: Path, tmp_path: Path
) -> None:
    with job(manifest, tmp_path, "sh", "-c", "echo at work; exec sleep 600") as running:
        assert running.stdout is not None
        assert any(line == "at work\n" for line in running.stdout)
        running.send_signal(number)
        running.communicate(timeout=WAIT_S)
    assert running.returncode == code


TOLD_AT_ONCE = """
set -T
trap 'if [[ -z ${told-} && ${1-} == sh && -n $(jobs -p) ]]; then told=1; kill -TERM $$; fi' DEBUG
"""
"""Has the shell told to end before the first thing it does after its command has begun (bash, functrace)."""


def test_a_job_that_is_told_to_end_as_its_command_begins_takes_it_along(
    manifest: Path, tmp_path: Path
) -> None:
    with job(manifest, tmp_path, "sh", "-c", "exec sleep 600", read_first=TOLD_AT_ONCE) as running:
        running.communicate(timeout=WAIT_S)
    assert running.returncode == 143


def test_a_job_without_a_command_says_how_it_is_used(manifest: Path, tmp_path: Path) -> None:
    done = run("bash", JOB, manifest)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: sbatch")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
def test_the_job_is_good_shell() -> None:
    done = run("shellcheck", JOB)
    assert done.returncode == 0, done.stdout
