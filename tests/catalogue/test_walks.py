"""The rule that tells who walks through a collection from who looks at one patient."""

from tciafs.catalogue.walks import MANY_PATIENTS, PACE_OF_MANY_S, PACE_S, REMEMBERED_COLLECTIONS, Walks


def test_the_first_patient_is_no_walk_and_the_second_one_soon_after_is() -> None:
    walks = Walks()
    assert not walks.asks("Lung", "P1", 0.0)
    walks.answered("Lung", 10.0)
    assert walks.asks("Lung", "P2", 10.0 + PACE_S)


def test_one_patient_asked_about_twice_is_no_walk() -> None:
    walks = Walks()
    assert not walks.asks("Lung", "P1", 0.0)
    assert not walks.asks("Lung", "P1", 0.1)


def test_who_takes_a_persons_time_between_patients_does_not_walk() -> None:
    walks = Walks()
    for second in range(5):
        assert not walks.asks("Lung", f"P{second}", second * (PACE_S + 0.1))


def test_a_walk_goes_on_with_the_same_patient_and_ends_with_a_pause() -> None:
    walks = Walks()
    walks.asks("Lung", "P1", 0.0)
    assert walks.asks("Lung", "P2", 0.1)
    assert walks.asks("Lung", "P2", 0.2), "the studies of a patient, then the series"
    assert not walks.asks("Lung", "P3", 0.2 + PACE_S + 0.1)


def test_a_slow_archive_makes_nobody_a_slow_walker() -> None:
    walks = Walks()
    walks.asks("Lung", "P1", 0.0)
    walks.answered("Lung", 60.0)
    assert walks.asks("Lung", "P2", 60.5)


def test_of_very_many_patients_only_a_program_in_haste_is_taken_for_one_that_walks() -> None:
    walks, many = Walks(), MANY_PATIENTS + 1
    assert not walks.asks("NLST", "P1", 0.0, many)
    assert not walks.asks("NLST", "P2", 2 * PACE_OF_MANY_S, many), "in a collection like others it would be"
    walks.answered("NLST", 10.0)
    assert walks.asks("NLST", "P3", 10.0 + PACE_OF_MANY_S, many)


def test_collections_are_told_apart_and_not_all_remembered() -> None:
    walks = Walks()
    for number in range(2 * REMEMBERED_COLLECTIONS):
        assert not walks.asks(f"C{number}", "P1", 0.0)
    assert len(walks._visits) == REMEMBERED_COLLECTIONS
    walks.answered("never asked about", 0.0)
