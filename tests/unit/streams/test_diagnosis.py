from pathlib import Path

import pytest

from ctrainer.agents.revision_halts import Halted
from ctrainer.schemas.topics import DAY_MS
from ctrainer.streams.diagnosis import Health, _memory, _receipts, awaited_review, halted_revision
from ctrainer.streams.keyring import create_key
from ctrainer.streams.settings import Settings
from ctrainer.trainer.admission import Room
from tests.fixed_memory import FixedMemory


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_folder=tmp_path, state_folder=tmp_path)


def test_unsigned_receipts_are_told(settings: Settings) -> None:
    finding = _receipts(settings)
    assert finding.health is Health.WARNING
    assert "unsigned" in finding.detail


def test_the_key_that_signs_receipts_is_named(settings: Settings, tmp_path: Path) -> None:
    key = create_key(folder=tmp_path, keyring=tmp_path / "keyring.json", key_id="notary", tenants=("*",))
    finding = _receipts(settings.model_copy(update={"receipt_key": key}))
    assert (finding.health, finding.detail) == (Health.GOOD, "signed by key notary")


def test_a_receipt_key_that_cannot_be_used_is_bad(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "notary.pem").write_text("no key")
    finding = _receipts(settings.model_copy(update={"receipt_key": tmp_path / "notary.pem"}))
    assert finding.health is Health.BAD


def test_a_halt_of_the_model_that_rewrites_is_a_warning_with_what_lifts_it() -> None:
    halted = [Halted(3, "strong"), Halted(1, "strong"), Halted(2, "another")]
    finding = halted_revision(halted, "strong")
    assert finding.health is Health.WARNING
    assert "[1, 3]" in finding.detail
    assert "ctrainer review resume" in finding.detail
    assert halted_revision(halted, "third").health is Health.GOOD


def test_a_sample_that_waits_for_a_person_until_it_is_forgotten_is_a_warning() -> None:
    now = 100 * DAY_MS
    finding = awaited_review([now - 2 * DAY_MS, now - 16 * DAY_MS], now_ms=now)
    assert finding.health is Health.WARNING
    assert "2 samples wait for a person, one for 16 days: after 30 it is gone" in finding.detail
    assert awaited_review([now - 14 * DAY_MS], now_ms=now).health is Health.GOOD
    assert awaited_review([], now_ms=now).health is Health.GOOD


def test_memory_that_nobody_can_tell_is_a_warning_because_sessions_do_not_wait_for_it() -> None:
    finding = _memory(FixedMemory(None))
    assert finding.health is Health.WARNING
    assert "do not wait" in finding.detail


def test_the_memory_that_sessions_wait_for_is_shown() -> None:
    finding = _memory(FixedMemory(Room(total=80 * 1024**3, free=20 * 1024**3, halves=True)))
    assert (finding.health, finding.detail) == (
        Health.GOOD,
        "20.0 of 80.0 GiB of the GPU are free; sessions wait for it",
    )
