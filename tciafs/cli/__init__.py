"""The command `tciafs`; see `program`."""

from tciafs.cli.program import commands, main

__all__ = ["commands", "main"]
