"""The command `tciafs`; see `program`."""

from tciafs.cli.program import NOT_YET, commands, main

__all__ = ["NOT_YET", "commands", "main"]
