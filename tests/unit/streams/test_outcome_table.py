import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from ctrainer.streams.outcome_table import OutcomeTable, Place

PLACES = st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 65_535, 65_536, 10**12]))
NOTES = st.lists(st.tuples(PLACES, st.sampled_from([0, 1, 2, 2**40]), st.integers(0, 8)), max_size=20)


@given(st.sets(PLACES), NOTES)
def test_a_table_knows_what_a_dictionary_would(places: set[Place], notes: list[tuple[Place, int, int]]) -> None:
    table, last, twice = OutcomeTable(), dict[Place, tuple[int, int]](), set[Place]()
    for place in places:
        table.add(place)
    for place, attempt, outcome in notes:
        table.note(place, attempt=attempt, outcome=outcome)
        known = last.get(place)
        if known is not None and known[0] == attempt:
            twice.add(place)
        if known is None or attempt >= known[0]:
            last[place] = attempt, outcome
    expected = [(place, last[place][1] if place in last else None, place in twice) for place in sorted(places)]
    assert list(table) == expected


def test_a_sample_takes_five_bytes_and_one_that_is_not_there_none() -> None:
    samples, first = 1 << 18, 1 << 30
    tracemalloc.start()
    try:
        table = OutcomeTable()
        for offset in range(samples):
            table.add((0, first + offset))
        for offset in (0, first - 1, first + 10**9):
            table.note((0, offset), attempt=0, outcome=1)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 5.1 * samples
