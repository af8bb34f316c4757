"""The mixed corpus of a thousand samples: conversations, plain instructions, personal data, and harm of every kind."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARES = {
    "hh_rlhf_harmless": 300,
    "presidio_synth": 250,
    "openai_moderation": 200,
    "self_instruct": 150,
    "inthewild_jailbreaks": 50,
    "harmbench": 50,
}
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def corpus(data: Path) -> list[bytes]:
    """Return a thousand flywheel records, always the same ones for the same data."""
    chance = random.Random(7)
    records = [
        _record(*_conversation(row))
        for name, share in SHARES.items()
        for row in chance.sample(_rows(data, name), share)
    ]
    chance.shuffle(records)
    return records


def texts(records: list[bytes]) -> list[str]:
    """Return what is said in records, one text for each record."""
    return ["\n".join(turn["content"] for turn in _turns(json.loads(record))) for record in records]


def _turns(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from record["request"]["messages"]
    yield record["response"]["choices"][0]["message"]


def _rows(data: Path, name: str) -> list[dict[str, Any]]:
    with (data / name / "dev.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _conversation(row: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    if "chosen" not in row:
        return [{"role": "user", "content": row["text"]}], row.get("response") or "I see."
    pieces = re.split(r"\n\n(Human|Assistant): ", row["chosen"])[1:]
    turns = [{"role": _SPEAKERS[who], "content": said} for who, said in zip(pieces[::2], pieces[1::2], strict=True)]
    answer = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
    return turns, answer.strip() or "I see."


def _record(messages: list[dict[str, str]], answer: str) -> bytes:
    record = {
        "timestamp": 1_764_000_000,
        "client_id": "benchmark",
        "workload_id": "mixed",
        "request": {"model": "m", "messages": messages},
        "response": {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]},
    }
    return json.dumps(record).encode()
