"""Two kernel settings of a mount that pyfuse3 cannot reach, raised where permitted.

`max_background` (12) bounds the reads under way at once: twelve that wait would hold up all others.
`read_ahead_kb` (128) is the size of a sequential read request; 1024 gives half as much speed again
on large images. Both are files of the kernel's control file systems; failing to write them costs
speed, nothing else.
"""

import logging
import os
from pathlib import Path

__all__ = ["tune"]

log = logging.getLogger(__name__)

MAX_BACKGROUND = 512
CONGESTION_THRESHOLD = MAX_BACKGROUND * 3 // 4
READ_AHEAD_KB = 1024
"""More gives nothing: 1 MiB is the largest request that FUSE sends."""


def tune(device: int) -> None:
    """Raise the settings of the mount with the device number `device` (stat's st_dev)."""
    minor = os.minor(device)
    connection = Path(f"/sys/fs/fuse/connections/{minor}")
    _write(connection / "max_background", MAX_BACKGROUND)
    _write(connection / "congestion_threshold", CONGESTION_THRESHOLD)
    _write(Path(f"/sys/class/bdi/{os.major(device)}:{minor}/read_ahead_kb"), READ_AHEAD_KB)


def _write(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        log.debug("%s could not be set to %d: %s", path, value, error.strerror)
