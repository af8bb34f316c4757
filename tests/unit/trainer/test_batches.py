import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.schemas.privacy import PrivacyMode
from ctrainer.trainer.batches import SlotBatches, Unit, batches_of, slot_of
from ctrainer.trainer.randomness import Randomness

IDENTITIES = st.lists(st.text(max_size=8), unique=True, max_size=30)


@given(identities=IDENTITIES, rate=st.floats(0.05, 1.0), left_out=st.integers(0, 29))
def test_a_record_that_is_left_out_changes_its_own_batch_and_no_other(
    identities: list[str], rate: float, left_out: int
) -> None:
    rest = [name for place, name in enumerate(identities) if place != left_out]
    whole, without = (named(SlotBatches.drawn(names, rate=rate), names) for names in (identities, rest))
    differing = [step for step in range(25) if whole[step] != without[step]]
    gone = identities[left_out] if left_out < len(identities) else None
    assert [whole[step] - without[step] for step in differing] == ([{gone}] if differing else [])
    assert not any(without[step] - whole[step] for step in differing)


def named(batches: SlotBatches, identities: list[str]) -> list[set[str]]:
    return [{identities[unit] for unit in batches.of(step)} for step in range(25)]


def test_every_record_is_in_one_batch_at_most_and_batches_have_the_expected_size() -> None:
    units = [Unit(identity=f"sha256:{number}", examples=(number,)) for number in range(4_000)]
    batches = batches_of(PrivacyMode.SINGLE_PASS, units, rate=0.01, randomness=Randomness.secure())
    drawn = [batches.of(step) for step in range(100)]
    assert sorted(unit for batch in drawn for unit in batch) == list(range(4_000))
    sizes = [len(batch) for batch in drawn]
    assert sum((size - 40) ** 2 for size in sizes) / 100 == pytest.approx(40, rel=0.5)
    assert batches.of(3) == drawn[3]


def test_a_pass_over_a_part_of_the_records_leaves_the_others_untouched() -> None:
    slots = [slot_of(str(number), rate=0.1) for number in range(1_000)]
    assert set(slots) == set(range(10))


@pytest.mark.parametrize("mode", [None, PrivacyMode.SEALED_POISSON])
def test_poisson_batches_are_drawn_anew_for_each_step(mode: PrivacyMode | None) -> None:
    units = [Unit(identity=str(number), examples=(number,)) for number in range(500)]
    batches = batches_of(mode, units, rate=0.5, randomness=Randomness.unsafe_from_seed(3))
    first, second = batches.of(0), batches.of(0)
    assert first != second
    assert 200 < len(first) < 300
