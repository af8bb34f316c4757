from ctrainer.agents.provisional import Provisional


def test_what_a_batch_makes_of_the_state_counts_once_a_later_one_comes() -> None:
    state = Provisional("old")
    assert state.before(0) == "old"
    state.propose("new", next_offset=3)
    assert state.before(3) == "new"


def test_the_same_batch_again_finds_the_state_it_found_before() -> None:
    state = Provisional("old")
    state.propose("new", next_offset=3)
    assert state.before(0) == "old"
    assert state.before(3) == "old"


def test_offsets_that_hold_no_records_lie_between_batches() -> None:
    state = Provisional("old")
    state.propose("new", next_offset=3)
    assert state.before(17) == "new"
