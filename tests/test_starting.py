"""What our processes do without, so that they start sooner."""

import gc
import subprocess
import sys

import pytest

from tciafs.starting import without_collector

NOT_NEEDED = {"rich", "pygments", "httpx._main"}


@pytest.mark.parametrize(
    "process", ["import tciafs.cli, tciafs.filesystem.mount", "import tciafs.worker.__main__"]
)
def test_a_process_starts_without_what_only_the_command_of_httpx_takes(process: str) -> None:
    script = f"{process}, sys; print(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "httpx" in loaded
    assert loaded & NOT_NEEDED == set()


def test_the_collector_is_at_work_again_whatever_an_import_ends_with() -> None:
    with without_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), without_collector():
        raise ImportError
    assert gc.isenabled()
