"""The server's file names, against the vectors that were run through the server's own code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.sample.names import new_file_names, plain_names
from tciafs.sample.records import Image, image_of_bytes

Numbers = list[tuple[int | None, int | None]]


def images(numbers: Numbers) -> list[Image]:
    return [image_of_bytes(str(place), a, i, b"") for place, (a, i) in enumerate(numbers)]


def names(numbers: Numbers) -> list[str]:
    return [name.removesuffix(".dcm") for name, _ in new_file_names(images(numbers))]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([(1, 1)], "1-1"),
        ([(1, i) for i in range(1, 11)], "1-01 1-02 1-03 1-04 1-05 1-06 1-07 1-08 1-09 1-10"),
        ([(1, i) for i in range(10)], "1-01 1-02 1-03 1-04 1-05 1-06 1-07 1-08 1-09 1-10"),
        ([(1 + (i > 3), i) for i in range(1, 7)], "1-1 1-2 1-3 2-1 2-2 2-3"),
        ([(a, i) for i in (1, 2, 3) for a in (1, 2)], "1-1 2-1 3-1 4-1 5-1 6-1"),
        ([(1, 1)] * 12, "1-1 1-2 1-3 1-4 1-5 1-6 1-7 1-8 1-9 1-10 1-11 1-12"),
        ([(None, i) for i in (1, 2, 3)], "1-1 1-2 1-3"),
        ([(None, 1), (5, 2), (5, 3)], "1-1 2-1 2-2"),
        ([(5, 1), (None, 2), (None, 3), (None, 4)], "1-1 2-1 3-1 4-1"),
        ([(0, 1), (None, 2), (1, 3)], "1-1 1-2 2-1"),
        ([(1, 9), (1, 5), (1, 7)], "1-1 1-2 1-3"),
    ],
)
def test_numbers_become_the_names_the_server_gives(numbers: Numbers, expected: str) -> None:
    assert names(numbers) == expected.split()


def test_twice_ten_numbers_are_padded_by_the_distinct_ones() -> None:
    found = names([(1, i) for _ in range(2) for i in range(1, 11)])
    assert found == [f"1-{counter:02}" for counter in range(1, 21)]


def test_images_without_instance_number_come_in_reversed_database_order() -> None:
    named = new_file_names(images([(1, None)] * 4))
    assert [image.sop_uid for _, image in named] == ["3", "2", "1", "0"]


def test_eleven_groups_are_padded_to_two_digits() -> None:
    assert names([(i, i) for i in range(1, 12)])[::10] == ["01-01", "11-01"]


def test_plain_names_count_in_database_order() -> None:
    assert [name for name, _ in plain_names(images([(1, 2), (1, 1)]))] == [
        "00000001.dcm",
        "00000002.dcm",
    ]


number = st.none() | st.integers(0, 30)


@given(st.lists(st.tuples(number, number), max_size=40))
def test_names_are_unique_and_nothing_is_lost(numbers: Numbers) -> None:
    named = new_file_names(images(numbers))
    assert len({name for name, _ in named}) == len(numbers)
    assert {image.sop_uid for _, image in named} == set(map(str, range(len(numbers))))
