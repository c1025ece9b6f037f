"""What the tests of selections share: an archive of some series, and a selection from its catalogue."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from msgspec.structs import replace

from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig
from tciafs.model import Series
from tciafs.selection.criteria import Criteria
from tciafs.selection.manifests import Manifest
from tciafs.selection.named import Lists
from tciafs.selection.selection import Choice, Selection
from tests.fakes import FakeArchive

Chosen: TypeAlias = Callable[..., AbstractAsyncContextManager[Selection]]

CT = Series("Lung", "P1", "1.1", "1.1.1", "CT", image_count=9, body_part="CHEST", manufacturer="GE")
SEG = replace(CT, series_uid="1.1.2", modality="SEG", image_count=1, body_part=None)
OTHER_STUDY = replace(CT, study_uid="1.2", series_uid="1.2.1", modality="MR", body_part="HEAD")
OTHER_PATIENT = replace(CT, patient_id="P2", study_uid="1.3", series_uid="1.3.1", modality="PT")
BRAIN = replace(OTHER_STUDY, collection="Brain", patient_id="B1", study_uid="2.1", series_uid="2.1.1")
BRAIN_CT = replace(BRAIN, patient_id="B2", study_uid="2.2", series_uid="2.2.1", modality="CT")
ALL = (CT, SEG, OTHER_STUDY, OTHER_PATIENT, BRAIN, BRAIN_CT)


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive(*ALL)


@pytest.fixture
def chosen(archive: FakeArchive, tmp_path: Path) -> Chosen:
    """Choose from the archive: `manifests` are UIDs, all but `carts` criteria."""

    @asynccontextmanager
    async def choose(
        *manifests: Manifest, carts: tuple[str, ...] = (), **wanted: Any
    ) -> AsyncIterator[Selection]:
        config = CatalogueConfig(tmp_path / "listings", ttl_s=86_400)
        async with (
            Catalogue.running(archive, config) as catalogue,
            Selection.running(
                catalogue,
                Choice(Criteria(**wanted), (Lists(manifests, carts),) if manifests or carts else ()),
            ) as selection,
        ):
            yield selection

    return choose


async def tree_of(selection: Selection) -> set[tuple[str, str, str, str]]:
    """Return all series that a selection shows, and see that no folder on the way to one is empty."""
    shown = set()
    for collection in (await selection.collections()).records:
        patients = (await selection.patients(collection.name)).records
        assert patients, f"{collection} is empty"
        for patient in patients:
            studies = (await selection.studies(collection.name, patient.patient_id)).records
            series = (await selection.series(collection.name, patient.patient_id)).records
            assert {each.study_uid for each in studies} == {each.study_uid for each in series} != set()
            shown |= {
                (collection.name, patient.patient_id, each.study_uid, each.series_uid) for each in series
            }
    return shown
