import pytest

from ctrainer.schemas.topics import TOPICS
from ctrainer.streams.topic_administration import TopicAdministration, TopicsDifferError


@pytest.fixture
def administration(bootstrap_servers: str) -> TopicAdministration:
    return TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=4, replication_factor=1)


async def test_after_apply_every_topic_is_as_the_table_says(administration: TopicAdministration) -> None:
    await administration.apply()
    assert await administration.check() == ()
    assert await administration.apply() == (), "applying again creates nothing"


async def test_a_worker_for_another_number_of_partitions_is_told_every_difference(
    administration: TopicAdministration, bootstrap_servers: str
) -> None:
    await administration.apply()
    other = TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=5, replication_factor=1)
    with pytest.raises(TopicsDifferError) as raised:
        await other.require()
    for topic in TOPICS.values():
        expected = f"{topic.name}: got 4 partitions, expected 5"
        assert (expected in str(raised.value)) is (topic.partitions is None)
