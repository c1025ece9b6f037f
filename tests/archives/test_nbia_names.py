"""NBIA's rule for the names of images, against the sample archive's, which was written apart from it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives.nbia.names import retriever_names
from tciafs.model import ImageKey
from tciafs.sample.names import new_file_names

NUMBERS = st.none() | st.integers(0, 4)


@dataclass(frozen=True)
class Image:
    """As much of an image of the sample archive as its names depend on."""

    acquisition: int | None
    instance: int | None


def keys(images: Sequence[Image]) -> list[ImageKey]:
    return [
        ImageKey(each.acquisition, each.instance, f"1.{place}") for place, each in enumerate(images, start=1)
    ]


def served(images: Sequence[Image]) -> dict[Image, str]:
    return {image: name for name, image in new_file_names(images)}  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ([], []),
        ([(1, 1)], ["1-1.dcm"]),
        ([(1, number) for number in range(10)], [f"1-{place:02}.dcm" for place in range(1, 11)]),
        ([(1, 1), (1, 2), (2, 3), (2, 4)], ["1-1.dcm", "1-2.dcm", "2-1.dcm", "2-2.dcm"]),
        ([(2, 4), (1, 1), (2, 3), (1, 2)], ["2-2.dcm", "1-1.dcm", "2-1.dcm", "1-2.dcm"]),
        ([(None, 5), (None, 7), (None, 9)], ["1-1.dcm", "1-2.dcm", "1-3.dcm"]),
        ([(5, 1), (None, 2), (None, 3)], ["1-1.dcm", "2-1.dcm", "3-1.dcm"]),
        ([(0, 1), (None, 2), (1, 3)], ["1-1.dcm", "1-2.dcm", "2-1.dcm"]),
    ],
)
def test_names_are_the_servers(images: list[tuple[int | None, int]], names: list[str]) -> None:
    assert retriever_names(keys([Image(*each) for each in images])) == names


@pytest.mark.parametrize(
    "images", [[(1, 1), (2, 1)], [(1, None)], [(1, 1), (1, None)], [(1, None), (1, None)]]
)
def test_where_the_database_decides_no_name_is_known(images: list[tuple[int, int | None]]) -> None:
    assert retriever_names(keys([Image(*each) for each in images])) is None


@given(st.lists(NUMBERS, min_size=1, max_size=130), st.randoms(use_true_random=False))
def test_all_that_is_known_is_what_the_server_gives(
    acquisitions: list[int | None], rng: random.Random
) -> None:
    images = [Image(acquisition, place * 3) for place, acquisition in enumerate(acquisitions)]
    expected = served(images)
    rng.shuffle(images)
    assert retriever_names(keys(images)) == [expected[image] for image in images]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12))
def test_a_name_is_never_guessed(numbers: list[tuple[int | None, int | None]]) -> None:
    images = [Image(*each) for each in numbers]
    names = retriever_names(keys(images))
    if names is not None:
        assert dict(zip(images, names, strict=True)) == served(images)


@given(st.lists(NUMBERS, min_size=1, max_size=120), st.data())
def test_the_first_images_have_the_same_names_but_for_zeros_in_front(
    acquisitions: list[int | None], data: st.DataObject
) -> None:
    images = [Image(acquisition, place) for place, acquisition in enumerate(acquisitions)]
    count = data.draw(st.integers(0, len(images)))
    some, every = retriever_names(keys(images[:count])), retriever_names(keys(images))
    assert some is not None
    assert every is not None
    assert [numbers(name) for name in some] == [numbers(name) for name in every[:count]]


def numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.removesuffix(".dcm").split("-")))
