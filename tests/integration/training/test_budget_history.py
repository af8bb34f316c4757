from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from ctrainer.agents.events import event_record
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord, Mechanism, ReserveBudget
from ctrainer.schemas.topics import PRIVACY_LEDGER
from ctrainer.streams.budget_history import budget_histories
from ctrainer.streams.commands.budget import row
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step

CONSTITUTION = ConstitutionReference(hash="cdd01ef066bc6cf2", digest="sha256:00")
MECHANISM = Mechanism(sampling_rate=0.02, noise_multiplier=0.8, clip_norm=1.0, expected_batch_size=6)


def granted(scope: str, sequence: int, *, repeated: bool = False) -> LedgerRecord:
    rdp = compose(NOTHING, rdp_of_step(0.02, 0.8), 16 * sequence)
    request = ReserveBudget(
        reservation_id=str(sequence),
        scope=scope,
        tenant="acme",
        session_id="s",
        first_step=0,
        steps=16,
        mechanism=MECHANISM,
        epsilon_ceiling=8.0,
        delta=1e-5,
    )
    entry = BudgetGranted(
        sequence=sequence, request=request, rdp=rdp, epsilon=epsilon_of(rdp, 1e-5), alert=False, repeated=repeated
    )
    return LedgerRecord(scope=scope, entry=entry)


async def test_the_spend_of_each_scope_is_what_the_ledger_topic_says(bootstrap_servers: str) -> None:
    await TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=4, replication_factor=1).apply()
    one, other = f"acme/{uuid4()}", f"acme/{uuid4()}"
    entries = [granted(one, 1), granted(one, 2), granted(other, 1), granted(one, 2, repeated=True)]
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    async with producer:
        for number, entry in enumerate(entries):
            cause = Record("test", 0, number, 1_700_000_000_000, None, None)
            output = event_record(
                topic=PRIVACY_LEDGER, key=entry.scope, data=entry, cause=cause, constitution=CONSTITUTION
            )
            await producer.send_and_wait(output.topic, key=output.key, value=output.value, headers=list(output.headers))
    histories = await budget_histories(TopicReader(bootstrap_servers=bootstrap_servers))
    shown = row(histories[one])
    assert (shown["grants"], shown["steps"]) == (2, 32)
    assert shown["epsilon"] == pytest.approx(histories[one].grants[-1].epsilon, abs=1e-4)
    assert row(histories[other])["steps"] == 16
    assert histories[one].remaining() == sorted(histories[one].remaining(), reverse=True)
