"""Inodes, lookup counts, names and times, over a catalogue that answers at once."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.errors import NoSuchName, Unreachable
from tciafs.filesystem import folders as folders_module
from tciafs.filesystem.folders import LONGEST_FOLDER_TIMEOUT_S, SHORTEST_FOLDER_TIMEOUT_S
from tciafs.filesystem.identities import ROOT_INODE, Level, inode_of
from tciafs.filesystem.images import FoundImage
from tciafs.filesystem.listings import FolderListing
from tciafs.filesystem.nodes import Child
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.tree import MANY_TOLD, Tree
from tciafs.model import Series
from tciafs.naming import Naming, patient_names
from tests.fakes import FakeArchive
from tests.filesystem.fakes import FakeCatalogue, descend

CT = Series(
    "Lung",
    "P1",
    "1.2.3.11111",
    "1.2.3.4.22222",
    modality="CT",
    number=2,
    description="Axial",
    image_count=2,
    size_bytes=50,
    released=dt.date(2021, 6, 1),
    submitted=dt.date(2021, 5, 1),
    studied=dt.date(2021, 4, 1),
    licence_name="CC BY 4.0",
    licence_uri="https://example.org/by",
)
STUDY = ("Lung", "P1", "04-01-2021-NA-NA-11111")
SERIES = (*STUDY, "2.000000-Axial-22222")
IMAGE = (*SERIES, "1-1.dcm")
DAY_NS = 86_400 * 10**9


class FakeImages:
    """Every series has the images 1-1.dcm and 1-2.dcm, of 20 and 30 bytes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def find(self, series: Series, name: str) -> FoundImage | None:
        self.asked.append((series.series_uid, name))
        sizes = {"1-1.dcm": 20, "1-2.dcm": 30}
        return FoundImage(name, sizes[name], 300.0) if name in sizes else None


class World:
    """A tree with what it was handed."""

    def __init__(self, *series: Series, naming: Naming = Naming.DESCRIPTIVE) -> None:
        self.archive = FakeArchive(*series)
        self.catalogue = FakeCatalogue(self.archive)
        self.images = FakeImages()
        catalogue: Any = self.catalogue
        images: Any = self.images
        self.tree = Tree(Sources(catalogue), images, naming)


def changed(series: Series, **fields: Any) -> Series:
    """Return the record with other fields; msgspec's replace, but for Any."""
    return replace(series, **fields)


def listed(listing: FolderListing) -> Iterator[Child]:
    place = 0
    while (child := listing.at(place)) is not None:
        yield child
        place += 1


# Inode numbers


async def test_inodes_are_the_same_in_a_new_tree_on_every_level() -> None:
    one, other = World(CT).tree, World(CT).tree
    for depth in range(1, len(IMAGE) + 1):
        first = await descend(one, *IMAGE[:depth])
        assert first.inode == (await descend(other, *IMAGE[:depth])).inode
    assert (await descend(one, "Lung", "LICENSE")).inode == (await descend(other, "Lung", "LICENSE")).inode


async def test_inodes_are_the_same_in_every_version_of_tciafs() -> None:
    tree = World(CT).tree
    image = await descend(tree, *IMAGE)
    numbers: list[int] = []
    step = image
    while step.parent is not None:
        numbers.append(step.inode)
        step = step.parent
    assert numbers == [
        8_194_746_521_320_219_221,
        3_852_836_889_451_800_690,
        704_802_296_997_378_992,
        6_026_970_993_541_778_670,
        3_908_042_238_361_741_644,
    ]


async def test_inodes_depend_on_the_record_and_not_on_its_name_or_description() -> None:
    descriptive = await descend(World(CT).tree, *SERIES)
    classic = await descend(World(CT, naming=Naming.CLASSIC).tree, "Lung", "P1", CT.study_uid, CT.series_uid)
    assert descriptive.inode == classic.inode


async def test_one_series_uid_under_two_patients_is_two_inodes_of_two_folders() -> None:
    tree = World(CT, changed(CT, patient_id="P2")).tree
    first = await descend(tree, *IMAGE)
    second = await descend(tree, "Lung", "P2", *IMAGE[2:])
    assert first.inode != second.inode
    assert first.parent is not None
    assert second.parent is not None
    assert first.parent.inode != second.parent.inode
    patients = [(await tree.series(node)).patient_id for node in (first, second)]
    assert patients == ["P1", "P2"]


async def test_all_inodes_of_a_path_differ_also_where_all_names_are_one() -> None:
    same = Series("X", "X", "X", "X", image_count=2)
    node = await descend(World(same, naming=Naming.CLASSIC).tree, "X", "X", "X", "X", "1-1.dcm")
    inodes = {node.inode}
    while node.parent is not None:
        node = node.parent
        inodes.add(node.inode)
    assert len(inodes) == 6


BELOW_THE_ROOT = st.sampled_from([level for level in Level if level is not Level.ROOT])
TEXTS = st.lists(st.text(max_size=4), min_size=1, max_size=4).map(tuple)


@given(BELOW_THE_ROOT, TEXTS, BELOW_THE_ROOT, TEXTS)
def test_inodes_are_equal_only_for_the_same_identity_and_fit_a_signed_number(
    level: Level, identity: tuple[str, ...], other_level: Level, other: tuple[str, ...]
) -> None:
    number = inode_of(level, identity)
    assert ROOT_INODE < number < 2**63
    is_same = (level, identity) == (other_level, other)
    assert (number == inode_of(other_level, other)) == is_same


async def test_no_archive_can_make_two_records_one_inode_by_a_nul_in_a_text() -> None:
    tree = World(
        changed(CT, collection="A\0B", patient_id="C"), changed(CT, collection="A", patient_id="B\0C")
    )
    one = await descend(tree.tree, "A%00B", "C")
    other = await descend(tree.tree, "A", "B%00C")
    assert one.inode != other.inode


async def test_an_inode_survives_texts_that_are_no_unicode() -> None:
    node = await descend(World(changed(CT, patient_id="\udcff")).tree, "Lung", "%DCFF")
    assert node.inode > ROOT_INODE


# What the kernel knows


async def test_an_inode_that_nobody_was_told_of_is_no_such_name() -> None:
    tree = World(CT).tree
    child = await tree.child(tree.root, "Lung")
    with pytest.raises(NoSuchName, match=str(child.inode)):
        tree.node(child.inode)
    assert len(tree) == 1


async def test_only_remember_counts_lookups() -> None:
    tree = World(CT).tree
    node = await descend(tree, "Lung")
    for _ in range(3):
        await tree.child(tree.root, "Lung")
        list(listed(await tree.listing(tree.root)))
        await tree.attributes(node)
        tree.path(node)
    assert node.lookups == 1
    tree.remember(tree.root, await tree.child(tree.root, "Lung"))
    assert node.lookups == 2
    assert tree.node(node.inode) is node


async def test_a_node_is_gone_when_all_its_lookups_are_forgotten() -> None:
    tree = World(CT).tree
    node = await descend(tree, "Lung")
    tree.remember(tree.root, await tree.child(tree.root, "Lung"))
    tree.forget(node.inode, 1)
    assert tree.knows(node.inode)
    tree.forget(node.inode, 1)
    assert not tree.knows(node.inode)
    with pytest.raises(NoSuchName):
        tree.node(node.inode)


async def test_forgetting_never_raises() -> None:
    tree = World(CT).tree
    node = await descend(tree, "Lung")
    tree.forget(node.inode, 1000)
    tree.forget(node.inode, 1)
    tree.forget(12345, 1)
    tree.forget(ROOT_INODE, 2**40)
    assert tree.node(ROOT_INODE) is tree.root
    assert len(tree) == 1


async def test_a_forgotten_inode_can_be_looked_up_again_and_counts_anew() -> None:
    tree = World(CT).tree
    node = await descend(tree, "Lung")
    tree.forget(node.inode, 1)
    again = await descend(tree, "Lung")
    assert (again.inode, again.lookups) == (node.inode, 1)


async def test_memory_of_ten_thousand_patients_is_given_back() -> None:
    world = World(*(changed(CT, patient_id=f"P{number:05}") for number in range(10_000)))
    collection = await descend(world.tree, "Lung")
    nodes = [world.tree.remember(collection, child) for child in listed(await world.tree.listing(collection))]
    assert len(world.tree) == 10_000 + 1 + 2
    for node in nodes:
        world.tree.forget(node.inode, 1)
    assert len(world.tree) == 2


@pytest.mark.parametrize("asker", ["node", "forget", "knows", "date", "count", "nobody"])
async def test_lookups_of_many_are_counted_before_anybody_can_tell(asker: str) -> None:
    world = World(*(changed(CT, patient_id=f"P{number:03}") for number in range(2 * MANY_TOLD)))
    tree = world.tree
    collection = await descend(tree, "Lung")
    listing = await tree.listing(collection)
    run = listing.run(0)
    assert run is not None
    listing.remember(0, MANY_TOLD)
    assert list(tree.nodes) == [ROOT_INODE, collection.inode], "it is not left for later"
    first, last = run.inodes[0], run.inodes[MANY_TOLD - 1]
    match asker:
        case "node":
            assert tree.node(last).key == f"P{MANY_TOLD - 1:03}"
            assert tree.path(tree.node(last)) == f"/Lung/P{MANY_TOLD - 1:03}"
        case "forget":
            tree.forget(first, 1)
            assert not tree.knows(first)
            assert tree.node(last).lookups == 1
        case "knows":
            assert tree.knows(first)
        case "date":
            tree.date(first, 7)
            assert tree.node(first).day == 7
        case "count":
            assert len(tree) == 2 + MANY_TOLD
        case _:
            listing.catch_up()
            assert len(tree.nodes) == 2 + MANY_TOLD
    assert not tree.knows(run.inodes[MANY_TOLD]), "the kernel has not heard of this one"
    listing.remember(0, MANY_TOLD)
    listing.catch_up()
    assert tree.node(last).lookups == 2


async def test_a_folder_keeps_its_children_nodes_apart_from_its_own() -> None:
    tree = World(CT).tree
    image = await descend(tree, *IMAGE)
    assert image.parent is not None
    tree.forget(image.parent.inode, 1)
    assert (await tree.attributes(image)).size_bytes == 20
    assert tree.path(image) == "/" + "/".join(IMAGE)


async def test_the_root_has_the_number_that_fuse_gives_it_and_is_a_folder() -> None:
    tree = World(CT).tree
    attributes = await tree.attributes(tree.node(ROOT_INODE))
    assert ROOT_INODE == 1
    assert attributes.is_folder


# Names


@pytest.mark.parametrize("depth", range(5))
async def test_a_name_that_a_folder_does_not_have_is_no_such_name(depth: int) -> None:
    tree = World(CT).tree
    folder = await descend(tree, *IMAGE[:depth])
    with pytest.raises(NoSuchName):
        await tree.child(folder, "no such thing")


async def test_a_message_shows_a_hostile_name_without_its_control_characters() -> None:
    tree = World(CT).tree
    with pytest.raises(NoSuchName) as raised:
        await tree.child(tree.root, "\x1b[31m\nERROR all is lost")
    assert str(raised.value).isprintable()
    with pytest.raises(NoSuchName) as raised:
        await tree.child(await descend(tree, *SERIES), "\x1b[31m\n.dcm")
    assert str(raised.value).isprintable()


async def test_looking_above_the_images_asks_for_no_image() -> None:
    world = World(CT)
    node = world.tree.root
    for name in SERIES:
        assert name in [child.name for child in listed(await world.tree.listing(node))]
        node = await descend(world.tree, *SERIES[: SERIES.index(name) + 1])
        await world.tree.attributes(node)
    assert world.images.asked == []


async def test_a_failure_of_the_archive_comes_through_and_is_not_remembered() -> None:
    world = World(CT)
    world.archive.fail("patients", Unreachable("gone"))
    collection = await descend(world.tree, "Lung")
    with pytest.raises(Unreachable):
        await world.tree.listing(collection)
    failure = world.tree.folders.failure_of(collection.inode)
    assert (str(failure), failure and failure.__traceback__) == ("gone", None)
    assert (await world.tree.child(collection, "P1")).name == "P1"


async def test_a_fresh_folder_is_asked_for_once() -> None:
    world = World(CT)
    for _ in range(3):
        await world.tree.child(world.tree.root, "Lung")
        await world.tree.listing(world.tree.root)
    assert world.archive.asked == [("collections",)]


async def test_a_stale_folder_is_asked_for_again_and_shows_what_is_new() -> None:
    world = World(CT)
    world.catalogue.fresh_for_s = -1.0
    collection = await descend(world.tree, "Lung")
    assert [child.name for child in listed(await world.tree.listing(collection))] == ["P1", "LICENSE"]
    world.archive.holdings.append(changed(CT, patient_id="P0"))
    assert [child.name for child in listed(await world.tree.listing(collection))] == ["P0", "P1", "LICENSE"]


async def test_a_stale_folder_whose_records_are_the_same_is_not_named_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named: list[int] = []

    def counting(records: Any) -> Any:
        named.append(len(records))
        return patient_names(records)

    monkeypatch.setattr(folders_module, "patient_names", counting)
    world = World(CT)
    world.catalogue.fresh_for_s = -1.0
    collection = await descend(world.tree, "Lung")
    for _ in range(5):
        await world.tree.child(collection, "P1")
    assert len(named) == 1
    world.archive.holdings.append(changed(CT, patient_id="P2"))
    await world.tree.child(collection, "P2")
    assert named == [1, 2]


async def test_an_open_listing_stays_as_it_is_while_its_folder_is_refreshed() -> None:
    world = World(CT, changed(CT, patient_id="P3"))
    world.catalogue.fresh_for_s = -1.0
    collection = await descend(world.tree, "Lung")
    open_listing = await world.tree.listing(collection)
    first = open_listing.at(0)
    world.archive.holdings[:] = [changed(CT, patient_id="P2"), changed(CT, patient_id="P0")]
    await world.tree.listing(collection)
    await open_listing.wait_for(1)
    assert open_listing.at(0) == first
    assert [child.name for child in listed(open_listing)] == ["P1", "P3", "LICENSE"]


async def test_listings_are_in_the_order_of_names_whatever_the_archive_says() -> None:
    patients = [changed(CT, patient_id=name) for name in ("b", "C", "a", "10", "9")]
    world = World(*patients)
    collection = await descend(world.tree, "Lung")
    names = [child.name for child in listed(await world.tree.listing(collection))]
    assert names == ["10", "9", "C", "a", "b", "LICENSE"]


async def test_a_listing_and_a_lookup_say_the_same_of_a_child() -> None:
    tree = World(CT).tree
    for depth in range(4):
        folder = await descend(tree, *IMAGE[:depth])
        (child,) = [each for each in listed(await tree.listing(folder)) if each.name == IMAGE[depth]]
        looked_up = await tree.child(folder, IMAGE[depth])
        assert (child.level, child.key, child.day, child.inode, child.attributes.mtime_ns) == (
            looked_up.level,
            looked_up.key,
            looked_up.day,
            looked_up.inode,
            looked_up.attributes.mtime_ns,
        )


async def test_a_study_shows_its_own_series_and_not_those_of_its_patients_other_studies() -> None:
    other = changed(CT, study_uid="1.2.3.99999", series_uid="1.2.3.4.33333")
    tree = World(CT, other).tree
    study = await descend(tree, *STUDY)
    assert [child.key for child in listed(await tree.listing(study))] == [CT.series_uid]


async def test_a_series_that_is_described_anew_keeps_its_inode_and_is_logged_by_its_new_name() -> None:
    world = World(CT)
    world.catalogue.fresh_for_s = -1.0
    old = await descend(world.tree, *SERIES)
    world.archive.holdings[:] = [changed(CT, description="Coronal", image_count=3)]
    new = await descend(world.tree, *STUDY, "2.000000-Coronal-22222")
    assert new is old
    assert (await world.tree.series(new)).image_count == 3
    assert world.tree.path(new).endswith("/2.000000-Coronal-22222")


async def test_paths_for_the_log_are_printable_whatever_the_archive_says() -> None:
    hostile = changed(CT, collection="a/b", patient_id="..", description="x")
    hostile = changed(hostile, patient_id="\x1b[2J\nroot: \x00")
    tree = World(hostile).tree
    node = await descend(tree, "a%2Fb", "%1B[2J%0Aroot: %00")
    assert tree.path(node) == "/a%2Fb/%1B[2J%0Aroot: %00"
    assert tree.path(node).isprintable()
    assert tree.path(tree.root) == "/"


# LICENSE


async def test_each_collection_has_a_licence_last_in_its_listing() -> None:
    world = World(CT)
    collection = await descend(world.tree, "Lung")
    assert [child.name for child in listed(await world.tree.listing(collection))][-1] == "LICENSE"
    licence = await world.tree.child(collection, "LICENSE")
    text = (await world.tree.text(await descend(world.tree, "Lung", "LICENSE"))).decode()
    assert licence.level is Level.LICENCE
    assert licence.attributes.size_bytes == len(text.encode())
    assert "Lung collection is distributed under the CC BY 4.0 (https://example.org/by)" in text


async def test_listing_a_collection_does_not_ask_for_the_licence() -> None:
    world = World(CT)
    collection = await descend(world.tree, "Lung")
    *_, licence = listed(await world.tree.listing(collection))
    assert world.archive.asked == [("collections",), ("patients", "Lung")]
    assert licence.attributes.timeout_s == 0.0, "the kernel has to ask for the size"


async def test_the_licence_is_asked_of_one_patient_only() -> None:
    world = World(*(changed(CT, patient_id=f"P{number}") for number in range(50)))
    await world.tree.child(await descend(world.tree, "Lung"), "LICENSE")
    assert [question for question in world.archive.asked if question[0] == "series"] == [
        ("series", "Lung", "P0")
    ]


async def test_the_size_of_a_licence_is_in_its_attributes_and_its_listing_has_the_same_inode() -> None:
    world = World(CT)
    node = await descend(world.tree, "Lung", "LICENSE")
    assert node.parent is not None
    *_, child = listed(await world.tree.listing(node.parent))
    assert child.inode == node.inode
    assert (await world.tree.attributes(node)).size_bytes == len(await world.tree.text(node))


async def test_a_patient_called_license_is_shown_and_no_file_hides_it() -> None:
    world = World(changed(CT, patient_id="LICENSE"))
    collection = await descend(world.tree, "Lung")
    (only,) = listed(await world.tree.listing(collection))
    assert (only.name, only.level) == ("LICENSE", Level.PATIENT)
    assert (await world.tree.child(collection, "LICENSE")).attributes.is_folder


@pytest.mark.parametrize("depth", [0, 2, 3])
async def test_only_collections_have_a_licence(depth: int) -> None:
    tree = World(CT).tree
    folder = await descend(tree, *IMAGE[:depth])
    assert "LICENSE" not in [child.name for child in listed(await tree.listing(folder))]
    with pytest.raises(NoSuchName):
        await tree.child(folder, "LICENSE")


async def test_a_collection_without_patients_has_a_licence_that_says_nothing_is_specified() -> None:
    world = World(CT)
    licence = await descend(world.tree, "Lung", "LICENSE")
    world.archive.holdings.clear()
    assert b"Not Specified" in await world.tree.text(licence)


# Times


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ({}, dt.date(2021, 6, 1)),
        ({"released": None}, dt.date(2021, 5, 1)),
        ({"released": None, "submitted": None}, dt.date(2021, 4, 1)),
        ({"released": dt.date(1969, 12, 31)}, dt.date(1969, 12, 31)),
        ({"released": dt.date(1970, 1, 1)}, dt.date(1970, 1, 1)),
        ({"released": dt.date(1, 1, 1)}, dt.date(1, 1, 1)),
        ({"released": dt.date(9999, 12, 31)}, dt.date(9999, 12, 31)),
    ],
)
async def test_series_and_images_have_the_day_of_release_else_submission_else_study(
    days: dict[str, dt.date | None], expected: dt.date
) -> None:
    tree = World(changed(CT, study_uid="1.2.3.11111", **days)).tree
    study = next(listed(await tree.listing(await descend(tree, "Lung", "P1"))))
    series = await descend(tree, "Lung", "P1", study.name, SERIES[-1])
    midnight_ns = (expected - dt.date(1970, 1, 1)).days * DAY_NS
    assert (await tree.attributes(series)).mtime_ns == midnight_ns
    assert (await tree.child(series, "1-1.dcm")).attributes.mtime_ns == midnight_ns


async def test_a_study_has_its_own_day() -> None:
    tree = World(CT).tree
    mtime_ns = (await tree.attributes(await descend(tree, *STUDY))).mtime_ns
    assert mtime_ns == (dt.date(2021, 4, 1) - dt.date(1970, 1, 1)).days * DAY_NS


async def test_what_has_no_day_has_the_time_of_the_mount_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_000_123)
    tree = World(changed(CT, released=None, submitted=None, studied=None)).tree
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_000_000_000)
    path = ("Lung", "P1", "NA-NA-11111", SERIES[-1], "1-1.dcm")
    for depth in range(len(path) + 1):
        attributes = await tree.attributes(await descend(tree, *path[:depth]))
        assert attributes.mtime_ns == 1_700_000_000_000_000_123


# How long the kernel may believe it


@pytest.mark.parametrize(
    ("fresh_for_s", "expected_s"),
    [(100.0, 100.0), (1e6, LONGEST_FOLDER_TIMEOUT_S), (-5.0, SHORTEST_FOLDER_TIMEOUT_S)],
)
async def test_a_folder_may_be_believed_as_long_as_its_listing_within_bounds(
    fresh_for_s: float, expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    world = World(CT)
    world.catalogue.fresh_for_s = fresh_for_s
    child = await world.tree.child(world.tree.root, "Lung")
    (listed_child,) = listed(await world.tree.listing(world.tree.root))
    assert child.attributes.timeout_s == listed_child.attributes.timeout_s == pytest.approx(expected_s)


async def test_the_time_left_of_a_listing_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    world = World(CT)
    world.catalogue.fresh_for_s = 100.0
    await world.tree.child(world.tree.root, "Lung")
    now += 60.0
    assert (await world.tree.child(world.tree.root, "Lung")).attributes.timeout_s == pytest.approx(40.0)
    assert world.archive.asked == [("collections",)]


async def test_an_image_may_be_believed_as_long_as_the_images_say() -> None:
    tree = World(CT).tree
    child = await tree.child(await descend(tree, *SERIES), "1-2.dcm")
    assert (child.attributes.size_bytes, child.attributes.timeout_s) == (30, 300.0)
    assert not child.attributes.is_folder


async def test_attributes_of_an_image_are_asked_of_the_images_by_its_name() -> None:
    world = World(CT)
    image = await descend(world.tree, *IMAGE)
    world.images.asked.clear()
    attributes = await world.tree.attributes(image)
    assert attributes.size_bytes == 20
    assert world.images.asked == [(CT.series_uid, "1-1.dcm")]
