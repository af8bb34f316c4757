from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.events import event_record
from ctrainer.agents.records import Record
from ctrainer.agents.registry import AdapterRegistry, read_shelf
from ctrainer.schemas.adapters import AdapterPublished, AdapterReleased
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.privacy import Accountant, Adjacency, PrivacyGuarantee, PrivacyUnit
from ctrainer.schemas.receipt import PAYLOAD_TYPE, SignedStatement
from ctrainer.schemas.release import ReleaseVerdict
from ctrainer.schemas.topics import ADAPTERS_PUBLISHED, TRAINING_REQUESTS
from ctrainer.schemas.training import CanaryAdapter, PromoteAdapter, RollbackAdapter
from ctrainer.streams.application import create_application
from ctrainer.streams.command_submitter import CommandSubmitter, RefusedError
from ctrainer.streams.keyring import create_key, read_keyring, read_signing_key
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.transactional_source import Subscription, TransactionalSource

CONSTITUTION = ConstitutionReference(hash="cdd01ef066bc6cf2", digest="sha256:00")


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4().hex[:8]}"


@pytest.fixture
async def submitter(bootstrap_servers: str, tenant: str, tmp_path: Path) -> AsyncIterator[CommandSubmitter]:
    """Sends signed commands to the registry stage, which runs on the real engine."""
    await TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=4, replication_factor=1).apply()
    keyring = tmp_path / "keyring.json"
    key = create_key(folder=tmp_path, keyring=keyring, key_id="alice", tenants=(tenant,))
    desk = CommandDesk(requesters=read_keyring(keyring), in_force=lambda: CONSTITUTION)
    handler = AdapterRegistry(desk=desk, topics=TopicReader(bootstrap_servers=bootstrap_servers))
    app = create_application(f"registry-{tenant}")
    source = TransactionalSource(
        subscription=Subscription(
            application=f"registry-{tenant}",
            bootstrap_servers=bootstrap_servers,
            topic=TRAINING_REQUESTS,
            group=f"registry-{tenant}",
            max_records=1,
        ),
        stage=Stage(app, name="registry", handler=handler),
        metrics=StreamMetrics.register(CollectorRegistry()).of("registry"),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        await stack.enter_async_context(source)
        yield CommandSubmitter(bootstrap_servers=bootstrap_servers, key=read_signing_key(key))


async def publish(bootstrap_servers: str, tenant: str, *names: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    for name in names:
        cause = Record("sessions", 0, 0, 1_700_000_000_000, None, None)
        output = event_record(
            topic=ADAPTERS_PUBLISHED,
            key=f"{tenant}/{name}",
            data=adapter(tenant, name),
            cause=cause,
            constitution=CONSTITUTION,
        )
        await producer.send_and_wait(output.topic, key=output.key, value=output.value, headers=list(output.headers))
    await producer.stop()


def adapter(tenant: str, name: str) -> AdapterPublished:
    return AdapterPublished(
        adapter_id=name,
        session_id=name,
        tenant=tenant,
        path=f"/adapters/{name}",
        digest="sha256:00",
        base_model="tiny",
        dataset_id="d",
        workloads=("chat",),
        membership_digest="sha256:00",
        steps=12,
        guarantee=PrivacyGuarantee(
            epsilon=3.0, delta=1e-5, unit=PrivacyUnit.RECORD, adjacency=Adjacency.ADD_REMOVE, accountant=Accountant.RDP
        ),
        constitution=CONSTITUTION,
        code_version="0.1.0",
        release=ReleaseVerdict(passed=True, reasons=(), checks=(), probes_digest="sha256:00"),
        receipt=SignedStatement(payload="", payloadType=PAYLOAD_TYPE, signatures=()),
    )


async def test_signed_commands_promote_try_and_roll_back_and_the_topic_says_what_serves(
    submitter: CommandSubmitter, bootstrap_servers: str, tenant: str
) -> None:
    await publish(bootstrap_servers, tenant, "one", "two")
    asked = {"tenant": tenant, "workload": "chat", "constitution": CONSTITUTION}
    first = await submitter.submit_and_wait(PromoteAdapter(request_id=uuid4(), adapter_id="one", **asked))
    assert isinstance(first, AdapterReleased)
    assert first.current == "one"
    await submitter.submit_and_wait(CanaryAdapter(request_id=uuid4(), adapter_id="two", share=0.1, **asked))
    await submitter.submit_and_wait(PromoteAdapter(request_id=uuid4(), adapter_id="two", **asked))
    with pytest.raises(RefusedError, match="unknown-adapter"):
        await submitter.submit_and_wait(PromoteAdapter(request_id=uuid4(), adapter_id="three", **asked))
    await submitter.submit_and_wait(RollbackAdapter(request_id=uuid4(), **asked))

    shelf = await read_shelf(TopicReader(bootstrap_servers=bootstrap_servers), tenant)
    release = shelf.releases["chat"]
    assert (release.current, release.canary, release.former, release.signed_by) == ("one", None, (), "alice")
