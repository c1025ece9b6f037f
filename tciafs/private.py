"""What the daemon and its workers write is for the user alone, be it a file or a core dump."""

import os
import resource

__all__ = ["be_private"]


def be_private() -> None:
    """Let nobody else read what this process writes from now on.

    To be called once most is imported: Python keeps what it has compiled in files beside the modules, and
    those are for everybody who shares an installation.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
