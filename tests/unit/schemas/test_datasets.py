import pytest
from pydantic import ValidationError

from ctrainer.schemas.datasets import OffsetRange, SelectionRules


def test_a_range_may_be_empty_and_never_ends_before_it_starts() -> None:
    assert OffsetRange(topic="t", partition=0, start=3, end=3).end == 3
    with pytest.raises(ValidationError):
        OffsetRange(topic="t", partition=0, start=3, end=2)


@pytest.mark.parametrize("rules", [{"max_records_per_user": 0}, {"held_out_share": 0.6}, {"held_out_share": -0.1}])
def test_rules_that_leave_nothing_to_train_on_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SelectionRules.model_validate(rules)
