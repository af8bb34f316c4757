from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.trainer.length_buckets import length_buckets
from ctrainer.trainer.micro_batch import MicroBatch

LENGTHS = st.lists(st.integers(1, 200), max_size=40)


def cost(lengths: list[int], parts: list[list[int]], pass_tokens: int) -> int:
    return sum(pass_tokens + len(part) * max(lengths[index] for index in part) for part in parts)


@given(lengths=LENGTHS, most=st.integers(1, 9), pass_tokens=st.integers(0, 300))
def test_every_record_is_in_one_part_that_is_not_too_large(lengths: list[int], most: int, pass_tokens: int) -> None:
    parts = length_buckets(lengths, most=MicroBatch(most), pass_tokens=pass_tokens)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    assert all(1 <= len(part) <= most for part in parts)


@given(lengths=LENGTHS, most=st.integers(1, 9), pass_tokens=st.integers(0, 300))
def test_parts_cost_no_more_than_full_ones_in_order_of_length(lengths: list[int], most: int, pass_tokens: int) -> None:
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    full = [order[first : first + most] for first in range(0, len(order), most)]
    parts = length_buckets(lengths, most=MicroBatch(most), pass_tokens=pass_tokens)
    assert cost(lengths, parts, pass_tokens) <= cost(lengths, full, pass_tokens)


@given(lengths=LENGTHS, most=st.integers(1, 9))
def test_parts_go_from_short_to_long(lengths: list[int], most: int) -> None:
    parts = length_buckets(lengths, most=MicroBatch(most), pass_tokens=10)
    assert all(lengths[one[-1]] <= lengths[other[0]] for one, other in pairwise(parts))


@pytest.mark.parametrize(("pass_tokens", "parts"), [(0, [[0], [1]]), (79, [[0], [1]]), (81, [[0, 1]])])
def test_a_pass_is_saved_where_padding_costs_less(pass_tokens: int, parts: list[list[int]]) -> None:
    assert length_buckets([10, 90], most=MicroBatch(4), pass_tokens=pass_tokens) == parts


@given(lengths=LENGTHS, most=st.integers(1, 9), tokens=st.integers(1, 600))
def test_a_part_of_several_records_has_no_more_tokens_than_allowed(lengths: list[int], most: int, tokens: int) -> None:
    parts = length_buckets(lengths, most=MicroBatch(most, tokens=tokens), pass_tokens=10_000)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    wide = [part for part in parts if len(part) > 1]
    assert all(len(part) <= most and len(part) * lengths[part[-1]] <= tokens for part in wide)
