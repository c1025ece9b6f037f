"""Where a daemon logs, for the process that starts it and for the daemon itself."""

import os
from pathlib import Path
from typing import TextIO

import platformdirs

from tciafs.errors import Unusable
from tciafs.settings import Settings

__all__ = ["ONLY_US", "log_file_of", "open_log"]

ONLY_US = 0o600


def log_file_of(settings: Settings) -> Path:
    """Return where a daemon in the background logs."""
    return settings.log_file or platformdirs.user_log_path("tciafs") / "tciafs.log"


def open_log(file: Path) -> TextIO:
    """Return a log file, opened to be written behind its end. Raises Unusable."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, ONLY_US)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise Unusable(f"the log file {file} cannot be written: {error.strerror}") from error
