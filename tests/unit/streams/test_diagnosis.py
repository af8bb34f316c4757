from pathlib import Path

import pytest

from ctrainer.streams.diagnosis import Health, _receipts
from ctrainer.streams.keyring import create_key
from ctrainer.streams.settings import Settings


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
