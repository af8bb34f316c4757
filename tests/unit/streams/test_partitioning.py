from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.streams.partitioning import hashes_of, partition_for


@given(key=st.binary(max_size=64), partitions=st.integers(1, 50))
def test_a_key_goes_where_kafkas_own_clients_put_it(key: bytes, partitions: int) -> None:
    everything = list(range(partitions))
    assert partition_for(key, partitions, 0) == DefaultPartitioner()(key, everything, everything)


@given(keys=st.lists(st.binary(max_size=40), max_size=50))
def test_many_keys_at_once_go_where_each_of_them_goes(keys: list[bytes]) -> None:
    everything = list(range(7))
    expected = {key: DefaultPartitioner()(key, everything, everything) for key in keys}
    assert {key: hash_ % 7 for key, hash_ in hashes_of(keys).items()} == expected


@given(otherwise=st.integers(0, 100), partitions=st.integers(1, 50))
def test_a_record_without_key_stays_beside_its_cause(otherwise: int, partitions: int) -> None:
    assert partition_for(None, partitions, otherwise) == otherwise % partitions
