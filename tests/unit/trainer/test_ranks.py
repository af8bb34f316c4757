import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.trainer.per_sample import ClippedSum
from ctrainer.trainer.ranks import OneRank, TorchRanks


@given(members=st.lists(st.integers(), unique=True), size=st.integers(1, 9))
def test_shares_are_even_and_the_whole(members: list[int], size: int) -> None:
    shares = [TorchRanks(rank=rank, size=size, device=torch.device("cpu")).share(members) for rank in range(size)]
    assert sorted(member for share in shares for member in share) == sorted(members)
    assert max(len(share) for share in shares) - min(len(share) for share in shares) <= 1


@pytest.mark.parametrize(("rank", "leads"), [(0, True), (1, False)])
def test_the_first_rank_leads(rank: int, *, leads: bool) -> None:
    assert TorchRanks(rank=rank, size=2, device=torch.device("cpu")).leads is leads


def test_one_rank_decides_and_computes_alone() -> None:
    alone = OneRank()
    total = ClippedSum(totals=[torch.ones(2)], not_finite=1)
    assert alone.leads
    assert alone.decide(lambda: 5) == 5
    assert alone.share([3, 4]) == [3, 4]
    assert alone.total(total) is total
