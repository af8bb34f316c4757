import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from ctrainer.streams.committed_offsets import CommittedOffsets, CommittedOffsetUnknownError

PLACE = TopicPartition("in", 3)


class Coordinator:
    """Answers with what it is given, for the partitions it is asked about."""

    def __init__(self, answer: dict[TopicPartition, int]) -> None:
        self._answer = answer

    async def list_consumer_group_offsets(
        self, group_id: str, *, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        assert group_id == "group"
        return {place: OffsetAndMetadata(self._answer[place], "") for place in partitions if place in self._answer}


async def test_a_coordinator_that_does_not_answer_for_the_partition_is_an_error_not_an_empty_partition() -> None:
    with pytest.raises(CommittedOffsetUnknownError, match="in/3 of group"):
        await CommittedOffsets(client=Coordinator({}), group="group").of(PLACE)


@pytest.mark.parametrize(("answered", "committed"), [(-1, None), (0, 0), (7, 7)])
async def test_the_answer_of_the_coordinator_is_taken(answered: int, committed: int | None) -> None:
    assert await CommittedOffsets(client=Coordinator({PLACE: answered}), group="group").of(PLACE) == committed
