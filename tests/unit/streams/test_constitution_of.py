from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ctrainer.agents.compliance.loading import default_constitution, load_constitution
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import OffsetRange
from ctrainer.streams.active_constitution import WrongConstitutionError, constitution_of
from ctrainer.streams.settings import Settings

DOCUMENT = """
id: strict
version: "1"
governance_hash: cdd01ef066bc6cf2
languages: [en]
minimum_score: 0.95
principles:
  - id: secrets
    statement: No secret is learned.
    severity: high
    action: reject
    rules:
      - id: word
        label: WORD
        pattern: hush
"""


class Updates:
    """The topic of constitution updates as a list of documents."""

    def __init__(self, *documents: bytes) -> None:
        self._documents = documents

    async def end_offsets(self, topic: str) -> dict[int, int]:
        return {0: len(self._documents) if topic else 0}

    async def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        for offset, document in enumerate(self._documents):
            yield Record(topic, partition or 0, offset, 0, b"strict", document)

    async def read_ranges(self, ranges: Sequence[OffsetRange]) -> AsyncIterator[Record]:
        for span in ranges:
            yield Record(span.topic, span.partition, span.start, 0, None, None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_folder=tmp_path, state_folder=tmp_path)


async def test_the_document_of_the_settings_is_found_without_any_topic(settings: Settings) -> None:
    packaged = default_constitution()
    assert await constitution_of(packaged.reference(), settings, Updates()) == packaged


async def test_an_enacted_document_is_found_by_its_digest_among_unreadable_ones(settings: Settings) -> None:
    enacted = load_constitution(DOCUMENT, governance_hash=settings.governance_hash)
    topics = Updates(b"\xff", b"id: broken", DOCUMENT.encode())
    assert await constitution_of(enacted.reference(), settings, topics) == enacted


async def test_a_document_that_is_nowhere_is_an_error_and_no_other_takes_its_place(settings: Settings) -> None:
    unknown = ConstitutionReference(hash=settings.governance_hash, digest="sha256:00")
    with pytest.raises(WrongConstitutionError, match="sha256:00"):
        await constitution_of(unknown, settings, Updates(DOCUMENT.encode()))
