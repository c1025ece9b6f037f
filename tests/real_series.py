"""The real series of the shared material, which is there or not: see the fixture `shared`."""

from pathlib import Path

from tests.mounting import run

__all__ = ["CRLM", "NACT", "unpacked"]

CRLM = "crlm-ct-1004-ct41.tar.xz"
NACT = "breast-mri-nact-pilot-ucsf-br-08-two-acquisitions.tar.xz"


def unpacked(shared: Path, name: str, folder: Path) -> Path:
    """Unpack an archive into a folder, made if it is not there; return it.

    By tar: Python's own wants to be told what to trust since 3.12, and cannot be before 3.11.4.
    """
    folder.mkdir(exist_ok=True)
    taken = run("tar", "-xJf", shared / "data" / "dicom" / name, "-C", folder)
    assert taken.returncode == 0, taken.stderr
    return folder
