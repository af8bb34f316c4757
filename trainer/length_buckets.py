"""Micro-batches of records of like length: padding is computed for nothing."""

from collections.abc import Sequence

from ctrainer.trainer.micro_batch import MicroBatch


def length_buckets(lengths: Sequence[int], *, most: MicroBatch, pass_tokens: int) -> list[list[int]]:
    """Split records into parts of at most `most` that cost least; return the indices of each part, shortest first.

    A part costs its number of records times its longest length, in tokens, and `pass_tokens` for one more forward and
    backward pass.

    >>> length_buckets([5, 90, 6, 100, 5], most=MicroBatch(4), pass_tokens=10)
    [[0, 4, 2], [1, 3]]
    >>> length_buckets([5, 90, 6, 100, 5], most=MicroBatch(4), pass_tokens=1_000)
    [[0, 4, 2], [1, 3]]
    >>> length_buckets([5, 90, 6, 100, 5], most=MicroBatch(4, tokens=120), pass_tokens=1_000)
    [[0, 4, 2], [1], [3]]
    >>> length_buckets([5, 5, 5], most=MicroBatch(8), pass_tokens=10)
    [[0, 1, 2]]
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # For the shortest n records: the least cost, and where the last part of that split begins.
    costs, begins = [0], [0]
    for end, last in enumerate(order, start=1):
        splits = (
            (costs[begin] + pass_tokens + (end - begin) * lengths[last], begin)
            for begin in range(max(0, end - most.most(lengths[last])), end)
        )
        cost, begin = min(splits)
        costs.append(cost)
        begins.append(begin)
    parts: list[list[int]] = []
    end = len(order)
    while end:
        parts.append(order[begins[end] : end])
        end = begins[end]
    return parts[::-1]
