"""Real programs read a series on the mount as they read it in a plain folder that `unzip` filled.

The programs are required: `make test` installs them, and without them these tests fail, saying so.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import SimpleITK

from tests.behaviour.retriever import expected_series, unzip_series
from tests.mounting import Mount, mounted, run
from tests.sample.running import RunningSample

pytestmark = pytest.mark.mount

SERIES = ["Phantom-Head", "Phantom-Brain-MR"]
"""A CT, and an MR of two acquisitions."""

PICTURES = ["Phantom-Mammography", "Phantom-Echo-NC", "Transfer-Syntaxes"]


@dataclass(frozen=True, slots=True)
class Twice:
    """One series in a plain folder and on the mount."""

    plain: Path
    shown: Path
    image_count: int

    @property
    def both(self) -> tuple[Path, Path]:
        """The plain folder and the one on the mount."""
        return self.plain, self.shown


@pytest.fixture(scope="module")
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


def _twice(sample: RunningSample, collection: str, mount: Mount, folder: Path) -> Twice:
    largest = max(expected_series(sample, collection), key=lambda one: one.image_count)
    plain = unzip_series(sample, largest, folder / "plain")
    return Twice(plain, mount.path / largest.path, largest.image_count)


@pytest.fixture(scope="module", params=SERIES)
def series(
    request: pytest.FixtureRequest,
    sample: RunningSample,
    mount: Mount,
    tmp_path_factory: pytest.TempPathFactory,
) -> Twice:
    """A series of many images; the first program that asks for it finds it uncached."""
    return _twice(sample, str(request.param), mount, tmp_path_factory.mktemp("programs"))


@pytest.fixture(params=SERIES)
def cold_series(request: pytest.FixtureRequest, sample: RunningSample, tmp_path: Path) -> Iterator[Twice]:
    """A series of many images that nobody has read."""
    with mounted(sample.url) as mount:
        yield _twice(sample, str(request.param), mount, tmp_path)


def installed(program: str) -> str:
    """Return the path of a program; fails where there is none."""
    found = shutil.which(program)
    assert found, f"{program} is not installed: run the tests with `make test`, which installs it"
    return found


def said(program: str, *words: str | Path) -> str:
    """Return what a program prints when all goes well."""
    done = run(installed(program), *words, timeout_s=60)
    assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def hashes(folder: Path, pattern: str) -> dict[str, str]:
    """Return the hash of each file that a program wrote."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob(pattern)}
    assert found, f"nothing like {pattern} was written"
    return found


def written_from(
    folder: Path, out: Path, write: Callable[[Path, Path], object], pattern: str
) -> dict[str, str]:
    out.mkdir()
    write(folder, out)
    return hashes(out, pattern)


def test_dcmftest_takes_every_file_for_dicom(series: Twice) -> None:
    told = said("dcmftest", *sorted(series.shown.iterdir()))
    assert [line.partition(":")[0] for line in told.splitlines()] == ["yes"] * series.image_count


def test_dcm2pnm_makes_the_same_pictures(series: Twice, tmp_path: Path) -> None:
    def write(folder: Path, out: Path) -> None:
        for path in sorted(folder.iterdir())[::10]:
            said("dcm2pnm", "--write-bmp", path, out / f"{path.stem}.bmp")

    plain, shown = (
        written_from(folder, tmp_path / f"bmp {place}", write, "*.bmp")
        for place, folder in enumerate(series.both)
    )
    assert shown == plain


@pytest.mark.parametrize("collection", PICTURES)
def test_dcm2pnm_makes_the_same_picture_of_every_kind_of_image(
    collection: str, sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    for one in expected_series(sample, collection):
        plain = unzip_series(sample, one, tmp_path)
        for name in (path.name for path in plain.iterdir()):
            # Not all transfer syntaxes are known to it; what it says of a file must then be the same, too.
            outcomes = [
                run(installed("dcm2pnm"), "--write-bmp", folder / name, tmp_path / f"{place}.bmp")
                for place, folder in enumerate((plain, mount.path / one.path))
            ]
            assert outcomes[0].returncode == outcomes[1].returncode
            if outcomes[0].returncode == 0:
                assert (tmp_path / "0.bmp").read_bytes() == (tmp_path / "1.bmp").read_bytes()


def test_simpleitk_reads_the_same_volume(series: Twice) -> None:
    toolkit: Any = SimpleITK  # which has no types

    def volume(folder: Path) -> tuple[object, ...]:
        reader = toolkit.ImageSeriesReader()
        (uid,) = reader.GetGDCMSeriesIDs(str(folder))
        names = reader.GetGDCMSeriesFileNames(str(folder), uid)
        reader.SetFileNames(names)
        image = reader.Execute()
        return (len(names), image.GetSize(), image.GetSpacing(), image.GetOrigin(), toolkit.Hash(image))

    plain, shown = map(volume, series.both)
    assert shown == plain
    assert shown[0] == series.image_count


def test_dcm2niix_converts_to_the_same_nifti(series: Twice, tmp_path: Path) -> None:
    def write(folder: Path, out: Path) -> None:
        said("dcm2niix", "-z", "n", "-b", "n", "-f", "%p_%s", "-o", out, folder)

    plain, shown = (
        written_from(folder, tmp_path / f"nifti {place}", write, "*.nii")
        for place, folder in enumerate(series.both)
    )
    assert shown == plain


def test_gdcmscanner_finds_every_image_and_its_number(series: Twice) -> None:
    plain, shown = (
        sorted(
            line.replace(str(folder), "")
            for line in said("gdcmscanner", "-d", folder, "-t", "0020,0013", "-p").splitlines()
            if ".dcm" in line
        )
        for folder in series.both
    )
    assert shown == plain
    assert len(shown) >= series.image_count


def test_gdcminfo_says_the_same_of_an_image(series: Twice) -> None:
    (plain, shown) = (
        said("gdcminfo", "--md5sum", sorted(folder.iterdir())[0]).replace(str(folder), "")
        for folder in series.both
    )
    assert shown == plain
    assert "md5sum" in shown


def test_getfattr_shows_where_a_series_comes_from(cold_series: Twice) -> None:
    shown = said("getfattr", "--absolute-names", "-d", cold_series.shown)
    assert "user.tcia.SeriesInstanceUID=" in shown
    assert 'user.tciafs.state="remote"' in shown


def test_tar_packs_a_series_that_was_never_read(cold_series: Twice, tmp_path: Path) -> None:
    shown = cold_series.shown
    said("tar", "-cf", tmp_path / "series.tar", "-C", shown.parent, shown.name)
    said("tar", "-xf", tmp_path / "series.tar", "-C", tmp_path)
    assert hashes(tmp_path / shown.name, "*.dcm") == hashes(cold_series.plain, "*.dcm")
