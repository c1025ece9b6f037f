"""The bundled sample archive as a process beside a mount, which ends with it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tciafs.errors import TciafsError

__all__ = ["sample_archive"]

START_S = 30.0
CLOSING_S = 3.0


@asynccontextmanager
async def sample_archive() -> AsyncIterator[str]:
    """Run the bundled sample archive as a process and give its address; it ends with us."""
    # -P: what happens to lie in the working folder is not imported.
    command = [sys.executable, "-P", "-m", "tciafs.sample", "--until-eof"]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        line = b""
        with trio.move_on_after(START_S):
            while not line.endswith(b"\n") and (data := await process.stdout.receive_some()):
                line += data
        if not line.endswith(b"\n"):
            raise TciafsError("the sample archive did not start")
        yield line.decode().strip()
    finally:
        process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSING_S):
            await process.wait()
