"""The command `tciafs`; see `program`."""

from tciafs import starting  # noqa: F401, before all that imports httpx
from tciafs.cli.program import commands, main

__all__ = ["commands", "main"]
