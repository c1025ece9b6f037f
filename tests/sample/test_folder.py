"""Any folder as an archive; and real series, whose retriever names the server's rule must give."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from tciafs.sample import content
from tests.real_series import CRLM, NACT, unpacked
from tests.sample.running import running_sample


def digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_a_folder_is_served_as_it_is(tmp_path: Path) -> None:
    (shelf,) = (shelf for shelf in content.shelves() if shelf.name == "Phantom-Brain-MR")
    files = [b"".join(image.pieces()) for image in shelf.series[0].images()]
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for place, data in enumerate(files):
        (deep / f"image{place}").write_bytes(data)
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "broken.dcm").write_bytes(files[0][:200])
    options = ("--sample-dir", str(tmp_path), "--sample-collection", "My Folder")
    with running_sample(*options) as sample:
        (row,) = sample.rows("v4/getSeries", Collection="My Folder")
        assert row["PatientID"] == "BRAIN-001"
        assert (row["ImageCount"], row["FileSize"]) == (len(files), sum(map(len, files)))
        uid = row["SeriesInstanceUID"]
        answer = sample.get("v1/getImage", SeriesInstanceUID=uid, NewFileNames="Yes")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        served = [archive.read(name) for name in archive.namelist() if name != "LICENSE"]
    assert served == files


@pytest.mark.parametrize("packed", [CRLM, NACT], ids=["crlm", "nact"])
def test_real_series_get_the_names_the_retriever_gave(packed: str, shared: Path, tmp_path: Path) -> None:
    unpacked(shared, packed, tmp_path)
    expected = {}
    for folder in {path.parent for path in tmp_path.rglob("*.dcm")}:
        by_name = {path.name: digest(path.read_bytes()) for path in folder.iterdir()}
        expected[tuple(sorted(by_name))] = by_name
    with running_sample("--sample-dir", str(tmp_path)) as sample:
        for row in sample.rows("v4/getSeries", Collection="SAMPLE"):
            uid = row["SeriesInstanceUID"]
            answer = sample.get("v4/getImage", SeriesInstanceUID=uid, NewFileNames="Yes")
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                names = [name for name in archive.namelist() if name != "LICENSE"]
                given = {name: digest(archive.read(name)) for name in names}
            assert expected.pop(tuple(sorted(given))) == given
    assert expected == {}
