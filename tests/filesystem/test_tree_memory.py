"""How much memory an inode takes that the kernel knows, and that it comes back: in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MOST_BYTES_AN_INODE = 400

PROGRAM = """
import gc, json, resource, sys, time
from pathlib import Path
import trio
from tciafs.catalogue.catalogue import Answer
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.tree import Tree
from tciafs.model import Collection, Patient, Series, Study
from tciafs.naming import Naming

PATIENTS, STUDIES, SERIES = 8000, 2, 8

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def uid(*numbers):
    return "1.3.6.1.4.1.14519.5.2.1.6279.6001." + ".".join(f"{each:09}" for each in numbers)

class Catalogue:
    # Answers as the real one does: records that are made anew for each answer.
    def answer(self, records):
        return Answer(tuple(records), time.time() + 1e6)
    async def collections(self):
        return self.answer([Collection("Lung")])
    async def patients(self, collection):
        return self.answer(Patient(collection, f"Lung-{each:06}") for each in range(PATIENTS))
    def at_hand(self, question):
        return None
    async def studies(self, collection, patient):
        number = int(patient[-6:])
        return self.answer(Study(collection, patient, uid(number, each), None, "", "CT THORAX")
            for each in range(STUDIES))
    async def series(self, collection, patient):
        number = int(patient[-6:])
        return self.answer(
            Series(collection, patient, uid(number, study), uid(number, study, each), "CT", each,
                f"Axial {each} of {number}", 100, 52428800)
            for study in range(STUDIES) for each in range(SERIES))

async def list_all(tree, node):
    listing, place, children = await tree.listing(node), 0, []
    while (child := listing.at(place)) is not None:
        children.append(tree.remember(node, child))
        place += 1
    return children

async def walk():
    tree = Tree(Sources(Catalogue()), None, Naming.DESCRIPTIVE)
    before = resident()
    for collection in await list_all(tree, tree.root):
        for patient in await list_all(tree, collection):
            if patient.level == 2:
                for study in await list_all(tree, patient):
                    await list_all(tree, study)
    live, inodes = resident(), len(tree)
    for inode in list(tree.nodes):
        tree.forget(inode, 1)
    patient = collection = study = None
    print(json.dumps([inodes, live - before, resident() - before]))

trio.run(walk)
"""


@pytest.fixture(scope="module")
def measured() -> tuple[int, int, int]:
    """Inodes, the bytes that all of them took, the bytes left when they were forgotten."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    inodes, live_bytes, left_bytes = json.loads(done.stdout)
    return inodes, live_bytes, left_bytes


def test_a_live_inode_takes_at_most_four_hundred_bytes(measured: tuple[int, int, int]) -> None:
    inodes, live_bytes, _left_bytes = measured
    assert inodes > 100_000
    assert live_bytes / inodes <= MOST_BYTES_AN_INODE


def test_memory_falls_when_the_kernel_forgets(measured: tuple[int, int, int]) -> None:
    _inodes, live_bytes, left_bytes = measured
    assert left_bytes < live_bytes / 2
