"""Settings that choose what of the archive is shown -> the choice, and its words.

A part of the composition root: it alone sees settings.
"""

import shlex

from tciafs.selection.criteria import Criteria
from tciafs.selection.manifests import read_manifest
from tciafs.selection.named import Lists
from tciafs.selection.selection import Choice
from tciafs.settings import Settings, declarations

__all__ = ["choice_in_words", "chosen_by"]

CHOOSING = (
    "collection",
    "patient",
    "modality",
    "body_part",
    "manufacturer",
    "model",
    "study_date",
    "released_since",
    "min_images",
    "max_images",
    "max_size",
    "licence",
    "manifest",
    "cart",
)


def chosen_by(settings: Settings) -> Choice:
    """Return what the settings choose; reads the manifests. Raises Misuse."""
    criteria = Criteria(
        collections=settings.collection,
        patients=settings.patient,
        modalities=settings.modality,
        body_parts=settings.body_part,
        manufacturers=settings.manufacturer,
        models=settings.model,
        studied=settings.study_date or (None, None),
        released_since=settings.released_since,
        fewest_images=settings.min_images,
        most_images=settings.max_images,
        most_bytes=settings.max_size,
        only_commercial=settings.licence == "commercial",
    )
    lists = Lists(tuple(map(read_manifest, settings.manifest)), settings.cart)
    return Choice(criteria, () if lists == Lists() else (lists,))


def choice_in_words(settings: Settings) -> str:
    """Return the options that choose, as one would write them; an empty text where none does."""
    words = []
    for each in declarations():
        value = getattr(settings, each.name)
        if each.name in CHOOSING and value != getattr(Settings(), each.name):
            for item in value if each.is_list else (value,):
                words.append(f"{each.option} {shlex.quote(_written(item))}")
    return " ".join(words)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return "..".join("" if each is None else str(each) for each in value)
    return str(value)
