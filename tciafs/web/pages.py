"""What is known of a mount as HTML: templates filled in, with every text from outside made harmless.

jinja2 escapes what could be markup, and before that `printable` all that is no visible character, such as
what turns the direction of text around. Addresses are relative, so that no page knows the token. Pure
functions.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tciafs.control.known_values import KnownFolder, KnownPage, LocatedImage
from tciafs.control.report import left_text, opens_text, printable, series_text, size_text, time_text
from tciafs.control.speeds import Speeds
from tciafs.control.values import DownloadStatus, Status

__all__ = ["SURROGATES", "Place", "Shown", "live_html", "page_html"]

SURROGATES = "surrogatepass"
"""How bytes of a mount point that are no UTF-8 are written in an address, and read again."""

KINDS = ("Collection", "Patient", "Study", "Series")
STATES = {
    "local": "on disk",
    "arriving": "coming in",
    "evicted": "was on disk",
    "failed": "failed",
    "remote": "in the archive",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page looks: mount, path in it, behind which name, and at which image (None: the middle one)."""

    mount: str
    path: str = "/"
    after: str = ""
    image: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names on the way, from the collection down."""
        return tuple(name for name in self.path.split("/") if name)

    def at(self, names: Sequence[str], after: str = "", image: int | None = None) -> str:
        """Return the address of another place in this mount."""
        query: dict[str, str | int] = {"mount": self.mount, "at": "/" + "/".join(names)}
        if after:
            query["after"] = after
        if image is not None:
            query["image"] = image
        return f"?{_query_text(query)}#tree"


@dataclass(frozen=True, slots=True)
class Shown:
    """What there is to show at a place: folders, or a series and its image; or the sentence why not.

    `no_picture` says why there is none although the series is there.
    """

    page: KnownPage | None = None
    series: KnownFolder | None = None
    located: LocatedImage | None = None
    error: str = ""
    no_picture: str = ""


def page_html(place: Place, mounts: Sequence[str], live: str, shown: Shown) -> str:
    """Return the whole page; `live` is what `live_html` has made of the same mount."""
    names = place.names
    return _template("page.html").render(
        title=names[-1] if names else place.mount,
        mounts=[
            {"name": each, "href": f"?{_query_text({'mount': each})}", "is_shown": each == place.mount}
            for each in mounts
        ],
        live=Markup(live),
        live_href=f"live?{_query_text({'mount': place.mount})}",
        crumbs=_crumbs(place),
        full_path="/".join((place.mount.rstrip("/"), *names)),
        tree_error=shown.error,
        series=shown.series,
        picture=_picture(place, shown),
        **_table(place, shown.page),
    )


def live_html(status: Status | None, speeds: Speeds, error: str) -> str:
    """Return what a mount does now, or the sentence why that is not known."""
    if status is not None and status.paused:
        speeds = Speeds()  # what came before says nothing of how fast it comes now
    downloads = [] if status is None else [_download(each, speeds) for each in status.downloads]
    return _template("live.html").render(
        status=status, error=error, speed=speeds.total(), downloads=downloads
    )


def _query_text(query: Mapping[str, str | int]) -> str:
    """Return a query as a part of an address; a mount point may be no UTF-8."""
    return urlencode(query, errors=SURROGATES)


def _crumbs(place: Place) -> list[dict[str, str]]:
    names = place.names
    inner = [{"name": name, "href": place.at(names[: end + 1])} for end, name in enumerate(names)]
    return [{"name": place.mount, "href": place.at(())}, *inner]


def _table(place: Place, page: KnownPage | None) -> dict[str, Any]:
    depth = min(len(place.names), len(KINDS) - 1)
    folders = () if page is None else page.folders
    following = None if page is None else page.next
    return {
        "page": page,
        "kind": KINDS[depth],
        "has_sizes": depth > 0 or any(each.series is not None for each in folders),
        "is_study": depth == len(KINDS) - 1,
        "folders": [{"folder": each, "href": place.at((*place.names, each.name))} for each in folders],
        "next_href": None if following is None else place.at(place.names, following),
        "first_href": place.at(place.names) if place.after else None,
    }


def _picture(place: Place, shown: Shown) -> dict[str, Any]:
    located, series = shown.located, shown.series
    if located is None or series is None:
        return {"href": "", "reason": shown.no_picture}
    query: dict[str, str | int] = {"mount": place.mount, "series": series.series_uid, "image": located.image}
    before, after = located.image - 1, located.image + 1
    return {
        "href": f"picture.png?{_query_text(query)}",
        "reason": "",
        "name": located.name,
        "place": f"{located.image + 1:,}",
        "images": f"{located.images:,}",
        "before": place.at(place.names, image=before) if before >= 0 else "",
        "after": place.at(place.names, image=after) if after < located.images else "",
    }


def _download(each: DownloadStatus, speeds: Speeds) -> dict[str, Any]:
    speed, left_s = speeds.of(each), speeds.left_s(each)
    is_queued = each.state == "queued"
    return {
        "whose": f"{each.collection}/{each.patient}",
        "series": series_text(each),
        "state": each.state,
        "share": min(1.0, each.arrived_bytes / each.listed_bytes) if each.listed_bytes else None,
        "images": f"{each.images:,} of {'?' if each.image_count is None else f'{each.image_count:,}'}",
        "size": f"{size_text(each.arrived_bytes)} of {_known_size(each.listed_bytes)}",
        "speed": "" if speed is None or is_queued else f"{size_text(speed)}/s",
        "left": "" if left_s is None or is_queued else left_text(left_s),
    }


def _known_size(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else size_text(size_bytes)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _harmless(value: Any) -> Any:
    """Return a text without what is not visible; what is markup already was made of such."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tciafs.web", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": size_text,
        "known_size": _known_size,
        "count": _count,
        "opens": opens_text,
        "moment": time_text,
        "quoted": shlex.quote,
        "state": lambda state: STATES.get(state, state),
    }
    return environment


_TEMPLATES = _environment()


def _template(name: str) -> Template:
    return _TEMPLATES.get_template(name)
