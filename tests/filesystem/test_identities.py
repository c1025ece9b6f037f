"""Inode numbers: of siblings that are numbered at once, and of those that are numbered as it goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.filesystem.identities import Level, Numbers, Siblings

KEYS = st.lists(st.text(max_size=4), unique=True, max_size=12)
SIBLINGS = Siblings(Level.PATIENT, ("NLST",))


@given(KEYS, st.data())
def test_numbers_that_are_made_as_they_are_asked_for_are_those_that_are_made_at_once(
    keys: list[str], data: st.DataObject
) -> None:
    numbers, expected = Numbers(SIBLINGS, keys), list(SIBLINGS.inodes(keys))
    bounds = st.none() | st.integers(-15, 15)
    for _ in range(data.draw(st.integers(0, 4))):
        wanted = slice(data.draw(bounds), data.draw(bounds))
        assert list(numbers[wanted]) == expected[wanted]
        numbers.make_more(data.draw(st.integers(0, 3)))
    assert len(numbers) == len(expected)
    for place in range(-len(keys), len(keys)):
        assert numbers[place] == expected[place]
    assert list(numbers) == expected
    assert [numbers.index(number) for number in expected] == list(range(len(keys)))


def test_no_more_are_made_than_are_asked_for() -> None:
    made: list[str] = []

    class Watched(Siblings):
        def inodes(self, keys):  # type: ignore[no-untyped-def]
            made.extend(keys)
            return super().inodes(keys)

    numbers = Numbers(Watched(Level.PATIENT, ("NLST",)), ["a", "b", "c", "d", "e"])
    assert len(numbers[:2]) == 2
    assert made == ["a", "b"]
    numbers.make_more(2)
    assert made == ["a", "b", "c", "d"]
    numbers.make_more(2)
    assert len(numbers[1:3]) == 2
    assert made == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("place", [-2, 1])
def test_a_place_that_there_is_not_raises(place: int) -> None:
    with pytest.raises(IndexError):
        Numbers(SIBLINGS, ["a"])[place]


def test_a_number_that_is_none_of_them_has_no_place() -> None:
    with pytest.raises(ValueError, match="not in"):
        Numbers(SIBLINGS, ["a"]).index(1)
