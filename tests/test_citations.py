"""Citations: one a data set, nothing made up, and forms that programs can read."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.citations import ARCHIVE_DOI, FORMS, SeriesSource, data_sets

BY = ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
LIDC = SeriesSource("LIDC-IDRI", "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX", *BY, is_third_party=False)
ANALYSIS = replace(LIDC, data_uri="https://doi.org/10.7937/tcia.2018.h7umfurq", is_third_party=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SOURCES = st.builds(SeriesSource, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans())


def test_series_with_one_doi_are_one_data_set() -> None:
    other_licence = replace(LIDC, licence_name="CC BY 3.0", licence_uri="")
    first, second = data_sets([LIDC, ANALYSIS, LIDC, other_licence])
    assert (first.title, first.series, first.doi) == ("LIDC-IDRI", 3, "10.7937/K9/TCIA.2015.LO9QL9SX")
    assert first.licence == f"CC BY 3.0; {BY[0]} ({BY[1]})"
    assert (second.title, second.series) == ("LIDC-IDRI (analysis results)", 1)


def test_what_has_no_address_is_a_data_set_for_each_collection() -> None:
    sets = data_sets([replace(LIDC, data_uri=""), replace(LIDC, data_uri="", collection="NLST")])
    assert [each.title for each in sets] == ["LIDC-IDRI", "NLST"]
    assert FORMS["text"](sets).startswith(
        "LIDC-IDRI [Data set, 1 series]. The Cancer Imaging Archive. Licence: "
    )


@pytest.mark.parametrize(
    ("uri", "doi"),
    [
        ("https://doi.org/10.7937/x", "10.7937/x"),
        ("http://dx.doi.org/10.7937/x", "10.7937/x"),
        ("doi:10.7937/x", "10.7937/x"),
        ("10.7937/x", "10.7937/x"),
        ("https://example.org/10.7937/x", None),
        ("", None),
    ],
)
def test_a_doi_is_known_in_all_its_spellings(uri: str, doi: str | None) -> None:
    assert data_sets([replace(LIDC, data_uri=uri)])[0].doi == doi


def test_a_text_says_what_was_used_and_under_which_licence() -> None:
    text = FORMS["text"](data_sets([LIDC] * 1018))
    assert text.startswith(
        "LIDC-IDRI [Data set, 1,018 series]. The Cancer Imaging Archive. "
        "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX. Licence: CC BY 4.0 (https://creativecommons.org/"
    )
    assert ARCHIVE_DOI in text


def test_bibtex_has_an_entry_a_data_set() -> None:
    text = FORMS["bibtex"](data_sets([replace(LIDC, collection="A_B & {C}"), ANALYSIS]))
    entries = re.findall(r"^@(\w+)\{(\w+),$", text, re.MULTILINE)
    assert entries == [("misc", "tcia1"), ("misc", "tcia2"), ("article", "tcia")]
    assert r"title = {{A\_B \& \{C\}}}," in text
    assert "  doi = {10.7937/K9/TCIA.2015.LO9QL9SX},\n" in text


@given(st.lists(SOURCES, max_size=5))
def test_csl_is_json_whatever_an_archive_writes(sources: list[SeriesSource]) -> None:
    sets = data_sets(sources)
    *items, article = json.loads(FORMS["csl-json"](sets))
    assert [item["title"] for item in items] == [each.title for each in sets]
    assert article["DOI"] == ARCHIVE_DOI
