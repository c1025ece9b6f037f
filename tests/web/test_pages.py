"""The page: what is there to see, addresses that lead there, and nothing of an archive that browsers obey."""

import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.control.known_values import KnownFolder, KnownPage, LocatedImage
from tciafs.control.speeds import Speeds
from tciafs.control.values import EventStatus, FailureStatus, RefusalStatus
from tciafs.web.pages import SURROGATES, Place, Shown, live_html, page_html
from tests.test_watch_view import DOWNLOAD, STATUS

FOLDER = KnownFolder("P1", 3, 40, 1 << 20, 1, 4096)
SERIES = KnownFolder("1.0-x", 1, 40, 1 << 20, 1, 4096, "local", "1.2.3", "CT")
LOCATED = LocatedImage("/cache/pack", 0, 10, "1-20.dcm", 19, 40)


class Seen(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += " "
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [attributes["href"] for tag, attributes in self.elements if tag == "a"]

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def page(place: Place, shown: Shown, mounts: tuple[str, ...] = ("/mnt/tcia",)) -> Seen:
    return Seen(page_html(place, mounts, "<p>live</p>", shown))


def asked_for(link: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(link).query)


def test_folders_are_shown_with_sizes_and_lead_on() -> None:
    found = KnownPage((FOLDER, replace(FOLDER, name="P 2/ü", series=None, listed_bytes=None)), 7, "P 2/ü")
    seen = page(Place("/mnt/tcia", "/Lung"), Shown(page=found))
    text = " ".join(seen.text.split())
    assert "P1 3 40 1.0M 4.0K in 1 series" in text
    assert "P 2/ü ? 40 ?" in text
    assert "2 of 7" in text
    assert {"mount": ["/mnt/tcia"], "at": ["/Lung/P1"]} in map(asked_for, seen.links())
    assert asked_for(seen.links()[-1]) == {"mount": ["/mnt/tcia"], "at": ["/Lung"], "after": ["P 2/ü"]}


def test_of_collections_sizes_are_shown_once_some_are_known() -> None:
    known = KnownFolder("Brain", 5, 60, 3 << 20, 0, 0)
    found = KnownPage((known, KnownFolder("Lung", None, None, None, 2, 8192)), 2, None)
    text = " ".join(page(Place("/mnt/tcia"), Shown(page=found)).text.split())
    assert "Collection Series Images Size On disk Brain 5 60 3.0M Lung ? ? ? 8.0K in 2 series" in text


def test_of_collections_no_sizes_are_shown_where_none_is_known() -> None:
    found = KnownPage((KnownFolder("Lung", None, None, None, 2, 8192),), 1, None)
    text = " ".join(page(Place("/mnt/tcia"), Shown(page=found)).text.split())
    assert "Collection On disk Lung 8.0K in 2 series" in text


def test_what_nobody_has_listed_is_said_with_what_to_do() -> None:
    unlisted = KnownPage((), 0, None, is_listed=False)
    text = page(Place("/mnt/tcia", "/Lung Dx/P'1"), Shown(page=unlisted)).text
    assert "Nobody has listed this folder yet" in text
    assert "ls '/mnt/tcia/Lung Dx/P'\"'\"'1'" in text


def test_a_series_is_shown_with_its_picture_and_the_way_to_its_neighbours() -> None:
    place = Place("/mnt/tcia", "/Lung/P1/study/1.0-x")
    seen = page(place, Shown(series=SERIES, located=LOCATED))
    (image,) = (attributes for tag, attributes in seen.elements if tag == "img")
    assert asked_for(image["src"]) == {"mount": ["/mnt/tcia"], "series": ["1.2.3"], "image": ["19"]}
    assert image["alt"] == "1-20.dcm, image 20 of 40"
    ways = {a["rel"]: asked_for(a["href"])["image"] for tag, a in seen.elements if tag == "a" and "rel" in a}
    assert ways == {"prev": ["18"], "next": ["20"]}
    alone = page(place, Shown(series=SERIES, located=replace(LOCATED, image=0, images=1)))
    assert not [a for tag, a in alone.elements if tag == "a" and "rel" in a]


@pytest.mark.parametrize("image", [None, 3])
def test_why_there_is_no_picture_or_nothing_is_said(image: int | None) -> None:
    place = Place("/mnt/tcia", "/Lung/P1/study/1.0-x", image=image)
    seen = page(place, Shown(series=SERIES, no_picture="There is none, as it failed."))
    assert "There is none, as it failed." in seen.text
    assert "img" not in seen.tags()
    assert "it is gone. Mount it." in page(place, Shown(error="it is gone. Mount it.")).text


def test_all_mounts_can_be_gone_to_and_the_present_one_is_marked() -> None:
    seen = page(Place("/b"), Shown(page=KnownPage((), 0, None)), ("/a", "/b"))
    marked = [a["href"] for tag, a in seen.elements if tag == "a" and a.get("aria-current") == "page"]
    assert marked == ["?mount=%2Fb"]


def test_everything_that_happens_is_shown() -> None:
    speeds = Speeds()
    speeds.note(replace(STATUS, downloads=(replace(DOWNLOAD, arrived_bytes=0, received_bytes=0),)), 0.0)
    speeds.note(STATUS, 2.0)
    text = " ".join(Seen(live_html(STATUS, speeds, "")).text.split())
    for said in (
        "images 10 times since the start, 90% of them from the cache",
        "17 for listings; series: 6 fetched, 7 failed",
        "Lung/P1 CT Thorax 1mm 1.2.3 arriving 12 of 133 6.1M of 70M 1.4M/s 0:21",
        "Lung/P2 CT Thorax 1mm 1.2.4 queued",
        "Lung/P3 no route",
        "3 times, 1.2.5 Check it.",
        "updatedb (process 99), 4 times",
        "nothing under NLST",
    ):
        assert said in text


def test_a_pause_is_said_and_has_no_speed() -> None:
    speeds = Speeds()
    speeds.note(replace(STATUS, downloads=(replace(DOWNLOAD, arrived_bytes=0, received_bytes=0),)), 0.0)
    speeds.note(STATUS, 2.0)
    text = " ".join(Seen(live_html(replace(STATUS, paused=True), speeds, "")).text.split())
    assert "Paused: tciafs resume" in text
    assert "12 of 133 6.1M of 70M Lung/P2" in text


def test_a_daemon_that_does_not_answer_is_said() -> None:
    seen = Seen(live_html(None, Speeds(), "it is dead; <b>clear</b> it"))
    assert "it is dead; <b>clear</b> it" in seen.text
    assert "b" not in seen.tags()


def test_nothing_is_loaded_from_elsewhere_and_no_page_knows_its_address() -> None:
    html = page_html(Place("/mnt/tcia"), ["/mnt/tcia"], "", Shown(page=KnownPage((FOLDER,), 1, None)))
    addresses = re.findall(r'(?:href|src|data-from)="([^"]*)"', html)
    assert addresses
    for address in addresses:
        assert re.match(r"[?#]|live\?|(page\.css|page\.js|icon\.svg)$", address), address
    assert " style=" not in html
    assert "onclick" not in html


HOSTILE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onload='x",
        "{{ 7*7 }}",
        "javascript:x",
    ]
)


def all_shown(name: str) -> list[str]:
    """Return all pages with this text wherever an archive has a say."""
    status = replace(
        STATUS,
        archive=name,
        user=name,
        login_refused=name,
        selection=(name,),
        downloads=(replace(DOWNLOAD, collection=name, patient=name, description=name, state=name),),
        failures=(FailureStatus(name, name, name, 0.0, name, name, name),),
        refusals=(RefusalStatus(name, 1, 1, 0.0, name),),
        catalogue=replace(STATUS.catalogue, events=(EventStatus(0.0, name),)),
    )
    where = Place("/mnt/tcia", f"/{name.replace('/', '%')}/x")
    folder = replace(SERIES, name=name, modality=name, series_uid=name, state=name)
    return [
        live_html(status, Speeds(), ""),
        page_html(where, [name], "", Shown(page=KnownPage((folder,), 2, name))),
        page_html(where, [name], "", Shown(series=folder, located=replace(LOCATED, name=name))),
        page_html(where, [name], "", Shown(error=name)),
    ]


@given(HOSTILE, st.text(), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_whatever_an_archive_says_is_text_and_harmless(markup: str, text: str, odd: str) -> None:
    hostile, tame = all_shown(f"{markup}{text}{odd}"), all_shown("tame")
    for each in hostile:
        assert all(line.isprintable() for line in each.split("\n"))
    assert [Seen(each).tags() for each in hostile] == [Seen(each).tags() for each in tame]


def test_a_mount_point_that_is_no_unicode_is_found_again() -> None:
    (link, *_) = Seen(page_html(Place("/m\udcff"), ["/m\udcff"], "", Shown(error="x"))).links()[1:]
    assert parse_qs(urlsplit(link).query, errors=SURROGATES) == {"mount": ["/m\udcff"]}


def test_a_template_in_a_name_is_no_template() -> None:
    assert all("{{ 7*7 }}" in each for each in all_shown("{{ 7*7 }}"))
