"""Every target stands its seeds, what was ever found, and a few random changes to them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

FOUND = Path(__file__).parent / "found"
"""Inputs that made a target fail once, by target; what `make fuzz` finds goes here with its fix."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Odd bytes are warned of, which is not what matters here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _changes(name: str) -> st.SearchStrategy[bytes]:
    """Return a strategy for seeds with something replaced, doubled or left out, and for any bytes."""

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        seed = draw(st.sampled_from(SEEDS[name]))
        start, end = sorted((draw(st.integers(0, len(seed))), draw(st.integers(0, len(seed)))))
        return seed[:start] + draw(st.binary(max_size=40)) + seed[draw(st.sampled_from([start, end])) :]

    return changed() | st.binary(max_size=300)


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_has_seeds_and_stands_them(name: str) -> None:
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_stands_odd_bytes(name: str) -> None:
    @settings(max_examples=150)
    @given(_changes(name))
    def stands(data: bytes) -> None:
        TARGETS[name](data)

    stands()


def test_what_was_found_once_is_stood() -> None:
    for path in sorted(FOUND.glob("*-*")):
        TARGETS[path.name.partition("-")[0]](path.read_bytes())
