"""The images of a series in columns: the same as a list of them, small, and read as they were written."""

import gc
import tracemalloc
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.store.layout import Layout, PackedImage, PackedImages, decode_layout, encode_layout

images = st.builds(
    PackedImage,
    st.text(max_size=20),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
in_any_order = st.lists(images, max_size=20, unique_by=lambda image: image.name)
lists = in_any_order | in_any_order.map(lambda several: sorted(several, key=lambda image: image.name))
MANY = 20_000


def many() -> PackedImages:
    return PackedImages(PackedImage(f"1-{n:05}.dcm", n * 2000, 2000, n) for n in range(1, MANY + 1))


@given(lists)
def test_columns_hold_what_was_put_in(several: list[PackedImage]) -> None:
    columns = PackedImages(several)
    assert list(columns) == [columns[place] for place in range(len(columns))] == several
    assert columns.names == [image.name for image in several]
    assert [columns.find(image.name) for image in several] == several
    assert columns.find("x" * 21) is None
    assert columns.size_bytes == sum(image.size_bytes for image in several)
    assert eval(repr(columns)) == columns


@given(lists, st.text(), st.text(), st.lists(st.text()).map(tuple))
def test_a_layout_is_read_as_it_was_written(
    several: list[PackedImage], uid: str, version: str, checks: tuple[str, ...]
) -> None:
    layout = Layout(uid, version, PackedImages(several), checks, ("a", "b"), routes=("idc", "nbia"))
    read = decode_layout(encode_layout(layout))
    assert read == layout
    assert [read.images.find(image.name) for image in several] == several
    assert read.images.find("x" * 21) is None


@given(in_any_order, st.integers(0, 20), st.text())
def test_annotations_are_written_behind_images_and_found_as_they_are(
    several: list[PackedImage], count: int, lacks: str
) -> None:
    images, annotations = PackedImages(several[:count]), PackedImages(several[count:])
    layout = Layout("1", "v", images, ("crc32",), ("a", "b"), ("NBIA",), annotations, lacks)
    read = decode_layout(encode_layout(layout))
    assert read == layout
    assert [read.file(place) for place in range(read.file_count)] == several
    assert [read.find(each.name) for each in several] == several
    assert read.find("x" * 21) is None
    assert read.image_bytes == sum(each.size_bytes for each in several[:count])


def test_a_layout_from_before_there_were_annotations_is_read() -> None:
    image = PackedImage("1-1.dcm", 0, 7, 1)
    written = msgspec.msgpack.decode(encode_layout(Layout("1", "v", PackedImages([image]), ("crc32",))))
    old = decode_layout(msgspec.msgpack.encode(written[:8]))
    assert (list(old.images), old.file_count, old.lacks) == ([image], 1, "")


@given(lists, images)
def test_what_was_read_can_be_added_to_and_compared(several: list[PackedImage], one: PackedImage) -> None:
    columns = decode_layout(encode_layout(Layout("1", "v", PackedImages(several), ()))).images
    columns.append(one)
    assert columns == PackedImages([*several, one])
    assert columns != PackedImages(several)
    assert columns.find(one.name) == one
    assert columns != [*several, one]


@given(st.binary(max_size=100))
def test_bytes_that_are_no_layout_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_layout(data)


def test_columns_that_do_not_fit_together_are_refused() -> None:
    names, offsets, sizes, checksums = many().columns()
    for columns in [
        (offsets[:-8], sizes, checksums),
        (offsets, sizes, b""),
        (offsets[:-1], sizes, checksums),
    ]:
        with pytest.raises(ValueError, match=r"columns|item size"):
            PackedImages.of_columns(names, *columns)


def test_a_layout_of_many_images_takes_less_than_a_hundred_bytes_each() -> None:
    written = encode_layout(Layout("1.2.3", "v", many(), ()))
    tracemalloc.start()
    try:
        read = decode_layout(written)
        assert read.images.find("1-00001.dcm") is not None
        assert tracemalloc.get_traced_memory()[0] < 100 * MANY
    finally:
        tracemalloc.stop()


def test_the_garbage_collector_does_not_look_at_each_image() -> None:
    gc.collect()
    before = len(gc.get_objects())
    growing = many()
    read = decode_layout(encode_layout(Layout("1.2.3", "v", growing, ())))
    assert read.images.find("1-00001.dcm") is not None
    assert len(gc.get_objects()) - before < 100


def test_a_layout_of_before_paths_were_written_down_is_read_as_ever() -> None:
    layout = Layout("1.2", "v", PackedImages([PackedImage("1-1.dcm", 0, 3, 7)]), ("crc32",))
    before = msgspec.msgpack.decode(encode_layout(layout))[:-1]
    assert decode_layout(msgspec.msgpack.encode(before)) == layout
    told = replace(layout, path=("Lung", "P1", "1.1", "1.2"))
    assert decode_layout(encode_layout(told)) == told
