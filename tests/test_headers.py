"""What the beginning of an image says, also to threads that ask first and at once."""

import builtins
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom.data
import pytest

from tciafs.headers import HEADER_BYTES, sop_class_in, sop_instance_uid_in

CT = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))


class CrowdedImport:
    """In the place of __import__: sees how many threads import pydicom at once, and lets them meet."""

    def __init__(self) -> None:
        self.most = 0
        self._inside = 0
        self._met = threading.Event()
        self._import = builtins.__import__

    def __call__(self, name: str, *args: Any) -> Any:
        if name == "pydicom.filereader":
            self._inside += 1
            self.most = max(self.most, self._inside)
            if self._inside == 2:
                self._met.set()
            self._met.wait(timeout=0.5)  # all of which one thread must wait alone
            self._inside -= 1
        return self._import(name, *args)


def test_the_header_of_an_image_says_what_it_is() -> None:
    header = CT.read_bytes()[:HEADER_BYTES]
    uid = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
    assert sop_instance_uid_in(header) == uid
    assert sop_class_in(header) == ("CT Image Storage", "1.2.840.10008.5.1.4.1.1.2")


@pytest.mark.parametrize("header", [b"", b"no DICOM at all", b"\xff" * 500])
def test_what_is_no_image_says_nothing(header: bytes) -> None:
    assert sop_instance_uid_in(header) is None
    assert sop_class_in(header) == ("", "")


def test_pydicom_is_imported_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, header = CrowdedImport(), CT.read_bytes()[:HEADER_BYTES]
    monkeypatch.setattr(builtins, "__import__", crowd)
    with ThreadPoolExecutor(2) as threads:
        assert len(set(threads.map(sop_class_in, [header, header]))) == 1
    assert crowd.most == 1
