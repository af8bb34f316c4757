from pathlib import Path

import pytest

from ctrainer.streams.cache_seal import cache_seal
from ctrainer.streams.settings import Settings, SettingsError


def settings(folder: Path, **changes: object) -> Settings:
    return Settings.model_validate({"cache_folder": folder, "state_folder": folder, **changes})


def test_processes_of_one_state_folder_have_one_seal_and_others_another(tmp_path: Path) -> None:
    one, again, other = (cache_seal(settings(tmp_path / name)) for name in ("one", "one", "other"))
    assert again.opened("key", one.sealed("key", b"value")) == b"value"
    assert other.opened("key", one.sealed("key", b"value")) is None
    assert len({one.name, again.name, other.name}) == 2
    (file,) = (tmp_path / "one").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_workers_with_the_same_file_share_wherever_they_are(tmp_path: Path) -> None:
    file = tmp_path / "seal"
    file.write_text("5" * 64 + "\n")
    one, other = (cache_seal(settings(tmp_path / name, cache_key_file=file)) for name in ("one", "other"))
    assert other.opened("key", one.sealed("key", b"value")) == b"value"


@pytest.mark.parametrize("content", [None, b"", b"  short  \n"])
def test_a_named_file_without_a_secret_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "seal"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="CTRAINER_CACHE_KEY_FILE"):
        cache_seal(settings(tmp_path, cache_key_file=file))


@pytest.mark.parametrize("content", [b"", b"cut off"])
def test_a_spoilt_secret_in_the_state_folder_is_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "verdicts.key").write_bytes(content)
    one, other = (cache_seal(settings(tmp_path)) for _ in range(2))
    assert other.opened("key", one.sealed("key", b"value")) is None


def test_a_process_that_can_keep_no_secret_shares_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one, other = (cache_seal(settings(tmp_path / "file")) for _ in range(2))
    assert one.opened("key", one.sealed("key", b"value")) == b"value"
    assert other.opened("key", one.sealed("key", b"value")) is None
