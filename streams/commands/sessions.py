"""`ctrainer sessions`: every training session and where it is."""

import asyncio
from typing import Annotated

import orjson
import typer

from ctrainer.schemas.privacy import PrivacyGuarantee
from ctrainer.schemas.topics import TRAINING_PROGRESS
from ctrainer.schemas.training import SessionAdvanced
from ctrainer.streams.console import print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader


def sessions(*, json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False) -> None:
    """List the training sessions, each with its newest state."""
    settings = Settings.read()
    reader = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    newest = asyncio.run(newest_states(reader))
    print_rows("sessions", [row(advanced) for advanced in newest.values()], as_json=json)


async def newest_states(reader: TopicReader) -> dict[str, SessionAdvanced]:
    """Return the newest state of each session by its id, oldest session first."""
    newest: dict[str, SessionAdvanced] = {}
    async for record in reader.read_topic(TRAINING_PROGRESS):
        data = orjson.loads(record.value or b"{}")["data"]
        if "state" in data:
            advanced = SessionAdvanced.model_validate(data)
            newest[advanced.session_id] = advanced
    return newest


def row(advanced: SessionAdvanced) -> dict[str, object]:
    """Return one session as a row."""
    spent = advanced.spent
    return {
        "session": advanced.session_id,
        "tenant": advanced.tenant,
        "state": advanced.state.value,
        "step": f"{advanced.step}/{advanced.steps}",
        "epsilon": round(spent.epsilon, 4) if isinstance(spent, PrivacyGuarantee) else spent and spent.guarantee,
        "delta": spent.delta if isinstance(spent, PrivacyGuarantee) else None,
        "reason": advanced.reason,
    }
