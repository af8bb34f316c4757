from ctrainer.schemas import topics
from ctrainer.schemas.topics import FOREVER_MS, TOPICS, Cleanup, Direction

CONSTANTS = {value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)}


def test_every_topic_has_a_name_to_import_and_every_name_has_a_topic() -> None:
    assert set(TOPICS) == CONSTANTS


def test_what_state_is_rebuilt_from_never_expires() -> None:
    for name in ("privacy.requests", "privacy.ledger", "audit.events", "training.requests", "constitution.updates"):
        assert (TOPICS[name].cleanup, TOPICS[name].retention_ms) == (Cleanup.DELETE, FOREVER_MS)
    for name in ("training.assignments", "datasets.sealed", "adapters.published"):
        assert TOPICS[name].cleanup is Cleanup.COMPACT


def test_topics_whose_one_owner_enforces_a_limit_have_one_partition() -> None:
    single = {name for name, topic in TOPICS.items() if topic.partitions == 1}
    constitution = {"constitution.updates", "constitution.events"}
    assert single == {"training.requests", "datasets.sealed", "adapters.published"} | constitution


def test_the_ledger_and_its_requests_are_partitioned_alike() -> None:
    requests, ledger = TOPICS["privacy.requests"], TOPICS["privacy.ledger"]
    assert (requests.key, requests.partitions) == (ledger.key, ledger.partitions)


def test_people_outside_write_only_to_inputs() -> None:
    inputs = {name for name, topic in TOPICS.items() if topic.direction is Direction.INPUT}
    assert inputs == {"flywheel.samples", "training.requests", "review.decisions", "constitution.updates"}
