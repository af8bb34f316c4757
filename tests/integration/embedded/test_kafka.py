import asyncio
import os
import signal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker, answers
from ctrainer.streams.embedded.process import started_at
from tests.conftest import MakeTopics, create_topics
from tests.integration.embedded.listeners import listening_addresses

FIVE_MEGABYTES = b"x" * 5_000_000


def pid_of(broker: KafkaBroker) -> int:
    pid = broker.process.pid()
    assert pid is not None
    return pid


def address_of(broker: KafkaBroker) -> str:
    address = broker.bootstrap_servers
    assert address is not None
    return address


async def produce(address: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=address, max_request_size=16_000_000) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def values_of(address: str, topic: str, count: int) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=address, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    async with consumer, asyncio.timeout(60):
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]


async def test_records_survive_the_broker_being_killed_and_its_address_stays(own_broker: KafkaBroker) -> None:
    address = address_of(own_broker)
    (topic,) = await create_topics(address, "kept", partitions=1)
    await produce(address, topic, b"before", FIVE_MEGABYTES)
    os.kill(pid_of(own_broker), signal.SIGKILL)
    assert await asyncio.to_thread(own_broker.start) == address
    await produce(address, topic, b"after")
    assert await values_of(address, topic, 3) == [b"before", FIVE_MEGABYTES, b"after"]


async def test_client_that_stays_connected_goes_on_after_the_broker_was_stopped_and_started(
    own_broker: KafkaBroker,
) -> None:
    address = address_of(own_broker)
    (topic,) = await create_topics(address, "reconnecting", partitions=1)
    async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, b"before", partition=0)
        await asyncio.to_thread(own_broker.stop)
        waiting = await producer.send(topic, b"meanwhile", partition=0)
        await asyncio.to_thread(own_broker.start)
        async with asyncio.timeout(60):
            await waiting
    assert await values_of(address, topic, 2) == [b"before", b"meanwhile"]


async def test_broker_aborts_the_transaction_of_a_dead_producer_and_readers_go_on(own_broker: KafkaBroker) -> None:
    address = address_of(own_broker)
    (topic,) = await create_topics(address, "transactional", partitions=1)
    dead = AIOKafkaProducer(bootstrap_servers=address, transactional_id="dead", transaction_timeout_ms=1_000)
    await dead.start()
    await dead.begin_transaction()
    await dead.send_and_wait(topic, b"never committed", partition=0)
    await dead.stop()
    await produce(address, topic, b"behind it")
    assert await values_of(address, topic, 1) == [b"behind it"]


async def test_broker_moves_with_its_data_when_its_ports_were_taken(
    own_broker: KafkaBroker,
) -> None:
    (topic,) = await create_topics(address_of(own_broker), "moving", partitions=1)
    await produce(address_of(own_broker), topic, b"kept")
    former = address_of(own_broker)
    await asyncio.to_thread(own_broker.stop)
    ports = [int((own_broker.folder / name).read_text()) for name in ("kafka.port", "controller.port")]
    strangers = [await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port) for port in ports]
    address = await asyncio.to_thread(own_broker.start)
    for stranger in strangers:
        stranger.close()
    assert address != former
    assert await values_of(address, topic, 1) == [b"kept"]


def test_starting_a_broker_that_runs_changes_nothing(own_broker: KafkaBroker) -> None:
    pid = pid_of(own_broker)
    again = KafkaBroker(folder=own_broker.folder, cache_folder=own_broker.cache_folder)
    assert again.start() == own_broker.bootstrap_servers
    assert pid_of(again) == pid


def test_broker_listens_on_loopback_only(own_broker: KafkaBroker) -> None:
    addresses = listening_addresses(pid_of(own_broker))
    assert len(addresses) == 2
    assert all(address.is_loopback for address in addresses)


def test_stopped_broker_is_gone_and_answers_no_more(own_broker: KafkaBroker) -> None:
    pid, address = pid_of(own_broker), address_of(own_broker)
    assert answers(address)
    own_broker.stop()
    assert started_at(pid) is None
    assert own_broker.bootstrap_servers is None
    assert not answers(address)
    assert not list(own_broker.folder.glob("*.pid"))


async def test_new_topics_take_records_of_sixteen_megabytes_and_begin_empty(
    services: Services, make_topics: MakeTopics
) -> None:
    topics = await make_topics("one", "other", partitions=3)
    partitions = [TopicPartition(topic, number) for topic in topics for number in range(3)]
    async with AIOKafkaConsumer(bootstrap_servers=services.bootstrap_servers) as consumer:
        assert await consumer.end_offsets(partitions) == dict.fromkeys(partitions, 0)
    await produce(services.bootstrap_servers, topics[0], FIVE_MEGABYTES * 3)
    assert await values_of(services.bootstrap_servers, topics[0], 1) == [FIVE_MEGABYTES * 3]
