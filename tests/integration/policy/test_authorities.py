"""A policy engine behind TLS is believed when its certificate is from an authority of the file, and only then."""

from pathlib import Path

import pytest

from ctrainer.agents.compliance.policy import PolicyUnavailableError
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.engines import connect
from ctrainer.streams.settings import Settings, SettingsError
from tests.integration.policy.authority import Authority
from tests.integration.policy.engine_server import engine_server, response


def connection(folder: Path, url: str, authorities: Path | None) -> EngineConnection:
    keys = {"CTRAINER_POLICY_URL": url} | ({"CTRAINER_POLICY_CA_FILE": str(authorities)} if authorities else {})
    made = connect(Settings.read({"HOME": str(folder), **keys}))
    assert made is not None
    return made


async def answered(_body: bytes) -> bytes:
    return response(b'{"result": 1}')


async def test_an_engine_with_a_certificate_of_the_authority_is_asked(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    async with engine_server(answered, tls=authority.server()) as url:
        engine = connection(tmp_path, url, authority.file)
        assert await engine.ask("/", {}) == {"result": 1}
        await engine.close()


@pytest.mark.parametrize("trusted", ["another authority", "this machine's authorities"])
async def test_an_engine_with_any_other_certificate_is_an_outage(tmp_path: Path, trusted: str) -> None:
    another = Authority(tmp_path / "another")
    async with engine_server(answered, tls=Authority(tmp_path / "ours").server()) as url:
        engine = connection(tmp_path, url, another.file if trusted == "another authority" else None)
        with pytest.raises(PolicyUnavailableError, match="connection"):
            await engine.ask("/", {})
        await engine.close()


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_without_authorities_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="CTRAINER_POLICY_CA_FILE"):
        connection(tmp_path, "https://127.0.0.1:1", file)
