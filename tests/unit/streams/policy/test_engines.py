from pathlib import Path

import pytest

from ctrainer.streams.policy.engines import connect
from ctrainer.streams.settings import Settings, SettingsError


def settings(folder: Path, token: bytes) -> Settings:
    (folder / "token").write_bytes(token)
    keys = {"CTRAINER_POLICY_URL": "https://opa:8181", "CTRAINER_POLICY_TOKEN_FILE": str(folder / "token")}
    return Settings.read({"HOME": str(folder), **keys})


def test_the_token_of_the_file_is_sent_without_its_line_end(tmp_path: Path) -> None:
    connection = connect(settings(tmp_path, b"abc.DEF-1_2~3+4/5==\n"))
    assert connection is not None
    assert "authorization: Bearer abc.DEF-1_2~3+4/5==\r\n" in connection._headers


@pytest.mark.parametrize("token", [b"", b"\n", b"two words", b"secret\r\nx-other: 1", b"se\xffcret", "sécret".encode()])
def test_a_file_without_a_token_stops_the_start_and_shows_nothing_of_it(tmp_path: Path, token: bytes) -> None:
    with pytest.raises(SettingsError, match="CTRAINER_POLICY_TOKEN_FILE") as refused:
        connect(settings(tmp_path, token))
    assert "cret" not in str(refused.value).replace(str(tmp_path), "")
