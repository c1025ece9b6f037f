"""What mounts of the Imaging Data Commons share: both archives of the sample, as real servers on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs.sample.__main__ import main as sample_archive
from tests.s3 import RunningS3, running_s3
from tests.sample.running import RunningSample, running_sample


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample archive as IDC has it: a folder of buckets, and in `index` the index of them."""
    folder = tmp_path_factory.mktemp("idc")
    sample_archive(["--write-idc", str(folder)])
    return folder


@pytest.fixture(scope="module")
def s3(written: Path) -> Iterator[RunningS3]:
    """The server of these buckets."""
    with running_s3(written) as server:
        yield server


@pytest.fixture(scope="module")
def nbia() -> Iterator[RunningSample]:
    """The same archive as NBIA has it."""
    with running_sample() as sample:
        yield sample
