"""Small files in the cache folder that only their owner may read. Blocks."""

import os
from pathlib import Path

__all__ = ["replace_privately"]


def replace_privately(file: Path, content: bytes) -> None:
    """Put a new file in the place of one, which is never seen half written. Raises OSError."""
    beside = file.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as written:
        written.write(content)
    beside.replace(file)
