"""An ordinary user mounts, by way of fusermount3, and nobody else sees what is his."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.filesystem import as_ordinary_user
from tests.mounting import marked_environment, processes_marked
from tests.sample.running import running_sample

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
]


def test_an_ordinary_user_mounts_and_nobody_else_looks_in() -> None:
    # Below /tmp, which everybody can reach, as pytest's own folder cannot.
    with running_sample() as sample, tempfile.TemporaryDirectory(prefix="tciafs-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        program: list[str | Path] = [
            sys.executable,
            as_ordinary_user.__file__,
            REPOSITORY,
            sample.url,
            folder,
        ]
        mark = uuid.uuid4().hex
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", *program],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env=marked_environment(mark),
        )
        assert processes_marked(mark) == []
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
    code, said = seen["mounted"]
    assert code == 0, said
    assert "Phantom-Head" in seen["owner"]
    assert (seen["root"], seen["another"]) == ("EACCES", "EACCES")
    assert seen["status"] == 0
    assert f"was mounted by the user {as_ordinary_user.USER}" in seen["status of another"]
    assert seen["cache"] == [f"{as_ordinary_user.USER} 0"]
    assert seen["unmounted"] == 0
