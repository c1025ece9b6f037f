"""What the daemon and its workers write: what is the user's is for him alone, what is Python's is not."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tciafs import launching
from tciafs.settings import Settings


@pytest.mark.parametrize(
    ("words", "told", "last"),
    [
        (("tciafs.worker",), b"", "tciafs/worker/fetching"),
        (("tciafs.daemon", "/nowhere"), launching._encode(Settings()), "tciafs/filesystem/mount"),
    ],
    ids=["worker", "daemon"],
)
def test_what_python_compiles_for_us_can_be_read_by_all_who_share_it(
    words: tuple[str, ...], told: bytes, last: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    before = os.umask(0o022)
    try:
        subprocess.run(
            [sys.executable, "-m", *words],
            input=told,
            capture_output=True,
            check=False,
            timeout=60,
            env={**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
    finally:
        os.umask(before)
    for module in ("httpx/_client", "trio/_core/_run", last):
        (compiled,) = tmp_path.rglob(f"{module}.*.pyc")
        assert compiled.stat().st_mode & stat.S_IROTH
