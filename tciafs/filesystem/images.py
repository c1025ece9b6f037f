"""How a series shows its files: exactly once it is known, as it comes in, or by provisional names.

Four states, in order of preference: the layout is known (names and sizes are final); it is coming in
(names as they arrive, ending when the whole is verified); one image of known size (name and size are
certain without a download); nothing known but the count (a look has the archive name the images, where it
can, or starts the download; a walk gets provisional names). Annotation files have no name before a series
has come in, so a series that has some is not known by its lone image, and a walk shows none. Defined here
and only here: that choice, and what a provisional name stands for.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from tciafs.errors import SeriesDamaged, TciafsError
from tciafs.filesystem.aliases import Aliases
from tciafs.model import Series
from tciafs.naming import is_retriever_image_name, provisional_image_names

if TYPE_CHECKING:
    from tciafs.store.download import Download
    from tciafs.store.layout import Layout, PackedImages
    from tciafs.store.open_packs import OpenImage
    from tciafs.store.parts import PartImage
    from tciafs.store.shelf import KnownSeries
    from tciafs.store.store import Store

__all__ = ["FoundImage", "ImageListing", "Images", "may_be_annotation", "may_be_image"]

log = logging.getLogger(__name__)

FINAL_S = 86_400.0
"""How long the kernel may keep what cannot change while the series has this version."""

CERTAIN_S = 300.0
"""Name and size of a lone image come from the listing, which may be refreshed."""

ARRIVING_S = 1.0
"""An image that is in is checked, but the series as a whole may still fail."""

BEGINNING_BYTES = 4096
"""What an image that comes in part is opened with, rounded up as the store rounds."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image, or annotation, behind a name: its true name, its size, and how long that may be believed.

    `size_bytes` None marks a provisional entry: the kernel has to ask again before it uses it.
    """

    name: str
    size_bytes: int | None
    timeout_s: float


class ImageListing(Protocol):
    """A folder of images being read; places count from 0 and never change."""

    async def wait_for(self, place: int) -> None:
        """Return once `at(place)` has its answer. Raises if the series cannot be listed whole."""
        ...

    def at(self, place: int) -> FoundImage | None:
        """Return the image at a place, None behind the last one."""
        ...


Admit: TypeAlias = Callable[[Series], None]
"""Admits the download of a series for whoever asks, who was admitted less at first. Raises Refused."""


def _freely(_series: Series) -> None:
    pass


class Images:
    """The images of all series, as the store knows them or gets to know them.

    `opened_cached` counts images that were opened and are here, `opened_waiting` those that were not.
    """

    def __init__(self, store: "Store") -> None:
        self._store = store
        self.opened_cached = self.opened_waiting = 0
        self._aliases = Aliases()

    def finding_fetches(self, series: Series, name: str) -> bool:
        """Return whether `find` would begin a download."""
        known = self._knows(series, name) is not None or _is_told(series, name)
        return not known and may_be_in(series, name) and self._store.peek_download(series) is None

    def as_far_as_named(self, series: Series) -> Series:
        """Return what to admit a look at names and sizes as: of no bytes where these come without images."""
        return msgspec.structs.replace(series, size_bytes=None) if self._surveys(series) else series

    def as_far_as_opened(self, series: Series) -> Series:
        """Return what to admit the opening of an image as: of its beginning where that is all it brings."""
        return msgspec.structs.replace(series, size_bytes=BEGINNING_BYTES) if self._ranges(series) else series

    def opening_fetches(self, series: Series) -> bool:
        """Return whether `open` would ask the archive, for a series or the beginning of an image."""
        return self._store.state(series) not in ("local", "arriving")

    async def find(self, series: Series, name: str) -> FoundImage | None:
        """Return the image or annotation that `name` stands for, None if there is none.

        Starts the download of an unknown series and answers as soon as the image is in. Raises what
        the download fails with, and SeriesDamaged for an annotation of which it is known why it did not come.
        """
        if known := self._knows(series, name):
            return await self._find_known(known, name)
        if _is_told(series, name):
            lone = _lone_image(series)
            return lone if lone is not None and name == lone.name else None
        if not may_be_in(series, name):
            return None
        if self._surveys(series) and (surveyed := await self._store.surveys.ensure(series)):
            return await self._find_known(surveyed, name)
        download = self._store.fetch(series)
        image = await download.wait_for(name, self._store.patience_s)
        if image is not None:
            return FoundImage(image.name, image.size_bytes, ARRIVING_S)
        layout = await download.wait_settled(self._store.patience_s)
        _complain_of(layout, name)
        return await self._behind_alias(layout, name, ARRIVING_S)

    async def open(self, series: Series, name: str, admit: Admit = _freely) -> "OpenImage | PartImage | None":
        """Return the image or annotation that `name` stands for, open for reading; None if there is none.

        Fetches the series if need be, or where images can be had in part the beginning of this one; if it
        turns out that they cannot, the rest is admitted, too. Raises what that fails with.
        """
        if self._ranges(series):
            if (known := await self._layout(series)) is not None:
                try:
                    return await self._open_part(series, known, name)
                except TciafsError as error:
                    if self._ranges(series):
                        raise
                    log.info("series %s cannot be had in part any more: %s", series.series_uid, error)
            if self.opening_fetches(series):
                rest_bytes = max(0, (series.size_bytes or 0) - BEGINNING_BYTES)
                admit(msgspec.structs.replace(series, size_bytes=rest_bytes))
        known = self._store.peek(series)
        if known is not None and known.pack_bytes:
            self.opened_cached += 1
        else:
            self.opened_waiting += 1
        lone = None if known else _lone_image(series)
        if lone is not None and name != lone.name:
            lone = None
        if opened := await self._store.open(series, name):
            if lone is None or opened.image.size_bytes == lone.size_bytes:
                return opened
            # The kernel was told another size, and would show a part as the whole: let the checks say so.
            opened.close()
            await self._store.fetch(series).wait_settled(self._store.patience_s)
            return await self._store.open(series, name)
        # What was listed before the series came in, as a lone image is, may have another name by now.
        if known := self._store.peek(series):
            layout = known.layout
        else:
            layout = await self._store.fetch(series).wait_settled(self._store.patience_s)
        image = await self._behind_alias(layout, name, ARRIVING_S)
        return None if image is None else await self._store.open(series, image.name)

    def _knows(self, series: Series, name: str) -> "KnownSeries | None":
        """Return what is known of a series, None also where a lacking annotation may be had by now."""
        known = self._store.peek(series)
        if known is None or not may_be_annotation(name):
            return known
        return known if known.is_final(self._store.peek_download(series) is not None) else None

    async def _layout(self, series: Series) -> "KnownSeries | None":
        return self._store.peek(series) or await self._store.surveys.ensure(series)

    async def _open_part(self, series: Series, known: "KnownSeries", name: str) -> "PartImage | None":
        self.opened_waiting += 1
        found = await self._find_known(known, name)
        image = None if found is None else known.layout.images.find(found.name)
        if image is None:
            return None
        opened = await self._store.ranged.open(series, known.layout, image)
        try:
            # The archive looks whether it is the image it should be, and who opens it hears if it is not.
            await self._store.ranged.bring(opened, 0, BEGINNING_BYTES)
        except BaseException:
            opened.close()
            raise
        return opened

    async def _find_known(self, known: "KnownSeries", name: str) -> FoundImage | None:
        if image := known.layout.find(name):
            return FoundImage(image.name, image.size_bytes, FINAL_S)
        _complain_of(known.layout, name)
        return await self._behind_alias(known.layout, name, FINAL_S)

    async def _behind_alias(self, layout: "Layout", name: str, timeout_s: float) -> FoundImage | None:
        """Return the image that a list made before the download calls `name`."""
        if not is_retriever_image_name(name):
            return None
        place = (await self._aliases.of(layout)).get(name)
        if place is None:
            return None
        image = layout.images[place]
        return FoundImage(image.name, image.size_bytes, timeout_s)

    def listing(self, series: Series) -> ImageListing | None:
        """Return the listing of a series that can be had without a new download, None if there is none."""
        if known := self._store.peek(series):
            return _Known(known.layout)
        if not series.has_annotations and (lone := _lone_image(series)):
            return _Listed([lone])
        if self._store.peek_download(series):
            # Asked for, so that it goes before those that nobody waits for.
            return _Arriving(self._store.fetch(series), self._store.patience_s)
        return None

    def look(self, series: Series, admit: Admit = _freely) -> ImageListing:
        """Return the listing of a series somebody looks at: named in advance, or listed as it comes in.

        Where it turns out that it has to come in for that, it is admitted first.
        """
        if self._surveys(series):
            return _Surveyed(self._store, series, admit)
        return _Arriving(self._store.fetch(series), self._store.patience_s)

    def walk(self, series: Series) -> ImageListing | None:
        """Return the provisional listing of a series somebody walks past; None: count not known."""
        if series.image_count is None:
            return None
        return _Provisional(provisional_image_names(series.image_count), lambda: self._known_images(series))

    def _surveys(self, series: Series) -> bool:
        """Return whether the archive is to name the images: it can, and they are not on their way already."""
        return self._store.peek_download(series) is None and self._store.surveys.are_to_be_had(series)

    def _ranges(self, series: Series) -> bool:
        """Return whether an image is to come in part: it can, and its series is not here or on its way."""
        if not self._store.ranged.are_to_be_had(series) or self._store.peek_download(series) is not None:
            return False
        known = self._store.peek(series)
        return self._store.surveys.are_to_be_had(series) if known is None else not known.pack_bytes

    def names_once_shown(self, series: Series) -> Iterator[str]:
        """Return the names under which the kernel may have images of a series, as it was.

        There may be millions: they are made as they are taken, for which any thread will do.
        """
        known = self._store.peek(series)
        files = () if known is None else (known.layout.images.names, known.layout.annotations.names)
        # Provisional names too: they are aliases of the true ones for those who listed them earlier.
        return chain(*files, provisional_image_names(series.image_count or 0))

    def _known_images(self, series: Series) -> "PackedImages | None":
        """Return what is known of the images of a series by now, None for nothing."""
        if known := self._store.peek(series):
            return known.layout.images
        download = self._store.peek_download(series)
        return None if download is None else download.images


def _lone_image(series: Series) -> FoundImage | None:
    """Return the image of a series of one: its name and size are certain before any download."""
    if series.image_count == 1 and series.size_bytes:
        return FoundImage(provisional_image_names(1)[0], series.size_bytes, CERTAIN_S)
    return None


def _is_told(series: Series, name: str) -> bool:
    """Return whether the listing says already what is behind a name."""
    lone = _lone_image(series)
    return lone is not None and (name == lone.name or not series.has_annotations)


def _complain_of(layout: "Layout", name: str) -> None:
    """Raise SeriesDamaged for an annotation that did not come: "no such file" would be a lie."""
    if layout.lacks and may_be_annotation(name):
        raise SeriesDamaged(f"series {layout.series_uid} is without annotations: {layout.lacks}")


def may_be_in(series: Series, name: str) -> bool:
    """Return whether a name is worth a download of this series, or worth waiting for it."""
    return may_be_image(name) or (series.has_annotations and may_be_annotation(name))


def may_be_annotation(name: str) -> bool:
    """Return whether a name is worth a download of a series with annotations; programs probe for no XML."""
    return name.lower().endswith(".xml") and not name.startswith(".")


def may_be_image(name: str) -> bool:
    """Return whether a name is worth a download, or worth waiting for: archives give nothing but *.dcm.

    Programs probe every folder for names of their own (.git, desktop.ini, ._1-1.dcm); those must
    neither start a download nor wait for one.
    """
    return name.lower().endswith(".dcm") and not name.startswith(".")


class _Listed:
    """A listing that is there as a whole."""

    def __init__(self, images: Sequence[FoundImage]) -> None:
        self._images = images

    async def wait_for(self, place: int) -> None:
        pass

    def at(self, place: int) -> FoundImage | None:
        return self._images[place] if place < len(self._images) else None


class _Known:
    """The files of a layout, in its order; nothing is copied for it."""

    def __init__(self, layout: "Layout") -> None:
        self._layout = layout

    async def wait_for(self, place: int) -> None:
        pass

    def at(self, place: int) -> FoundImage | None:
        if place >= self._layout.file_count:
            return None
        image = self._layout.file(place)
        return FoundImage(image.name, image.size_bytes, FINAL_S)


class _Surveyed:
    """The images of a series that the archive names in advance, once it has; else as they come in."""

    def __init__(self, store: "Store", series: Series, admit: Admit) -> None:
        self._store = store
        self._series = series
        self._admit = admit
        self._listing: ImageListing | None = None

    async def wait_for(self, place: int) -> None:
        if self._listing is None:
            if known := await self._store.surveys.ensure(self._series):
                self._listing = _Known(known.layout)
            else:
                if self._store.peek_download(self._series) is None:
                    self._admit(self._series)
                self._listing = _Arriving(self._store.fetch(self._series), self._store.patience_s)
        await self._listing.wait_for(place)

    def at(self, place: int) -> FoundImage | None:
        return None if self._listing is None else self._listing.at(place)


class _Provisional:
    """Names made from the image count, none of them believed for a moment.

    A size goes with those that have come true since: the kernel takes over what a listing says of an
    inode that it knows, and an image that somebody has mapped must not shrink to nothing.
    """

    def __init__(self, names: Sequence[str], known_images: "Callable[[], PackedImages | None]") -> None:
        self._names = names
        self._ask_known = known_images
        self._known: PackedImages | None = None

    async def wait_for(self, place: int) -> None:
        self._known = self._ask_known()

    def at(self, place: int) -> FoundImage | None:
        if place >= len(self._names):
            return None
        name = self._names[place]
        image = None if self._known is None else self._known.find(name)
        return FoundImage(name, None if image is None else image.size_bytes, 0.0)


class _Arriving:
    """The files of a download in order of arrival; its end is the verified end of the series.

    The kernel may believe all but the first: who looks at what it listed then shows itself by one
    lookup, and is no walker (du, rsync and ls -lR look at each folder before they go to the next).
    """

    def __init__(self, download: "Download", patience_s: float) -> None:
        self._download = download
        self._patience_s = patience_s

    async def wait_for(self, place: int) -> None:
        await self._download.wait_for_more(place, self._patience_s)

    def at(self, place: int) -> FoundImage | None:
        if place >= self._download.file_count:
            return None
        image = self._download.file(place)
        return FoundImage(image.name, image.size_bytes, ARRIVING_S if place else 0.0)
