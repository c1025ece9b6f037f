"""The data usage policy: whom it holds for, and that an agreement is kept."""

import json
from pathlib import Path

import pytest

from tciafs.agreement import agree, has_agreed, must_agree
from tciafs.errors import Unusable
from tciafs.settings import Settings


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        (Settings().url, True),
        ("https://nlst.cancerimagingarchive.net/nbia-api/services/v4", True),
        ("https://CancerImagingArchive.NET.", True),
        ("https://notcancerimagingarchive.net", False),
        ("https://cancerimagingarchive.net.example.org", False),
        ("http://127.0.0.1:8042/nbia-api/services", False),
        ("no address", False),
    ],
)
def test_it_holds_for_the_archives_of_tcia(url: str, holds: bool) -> None:
    assert must_agree(url) == holds


def test_an_agreement_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "share" / "tciafs"
    assert not has_agreed(folder)
    agree(folder)
    assert has_agreed(folder)


@pytest.mark.parametrize("written", ["", "[]", "{}", json.dumps({"policy": "https://example.org/another"})])
def test_what_is_no_agreement_to_this_policy_is_none(tmp_path: Path, written: str) -> None:
    (tmp_path / "policy.json").write_text(written)
    assert not has_agreed(tmp_path)


def test_where_it_cannot_be_kept_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="could not be written: Not a directory"):
        agree(tmp_path / "file" / "tciafs")
