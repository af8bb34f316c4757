from pathlib import Path

import pytest

from ctrainer.streams.settings import Settings, SettingsError

HOME = {"HOME": "/home/someone"}


def test_nothing_set_is_a_deployment_on_this_machine() -> None:
    settings = Settings.read(HOME)
    assert settings.state_folder == Path("/home/someone/.local/state/ctrainer")
    assert settings.kafka_bootstrap_servers is None
    assert settings.unsafe() == ()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("CTRAINER_WEB_PORT", "99999", "a TCP port"),
        ("CTRAINER_PARTITIONS", "0", "1 to 10000"),
        ("CTRAINER_PARTITIONS", "many", "1 to 10000"),
        ("CTRAINER_APPLICATION", "a b", "letters, digits"),
        ("CTRAINER_CONSTITUTION_DIGEST", "abc", "the digest the constitution must have"),
        ("CTRAINER_KAFKA_SECURITY_PROTOCOL", "TLS", "SASL_SSL"),
        ("CTRAINER_UNSAFE_ACCEPT_UNSIGNED", "perhaps", "true lets anyone"),
        ("CTRAINER_GUARD_ASK", "sometimes", "such as 0.2-0.8"),
        ("CTRAINER_GUARD_URL", "localhost:8000", "OpenAI-compatible"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_would_be_right(key: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.read({**HOME, key: value})
    text = str(raised.value)
    assert key in text
    assert repr(value) in text
    assert expected in text


def test_every_wrong_value_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.read({**HOME, "CTRAINER_WEB_PORT": "x", "CTRAINER_PARTITIONS": "y"})
    assert "CTRAINER_WEB_PORT" in str(raised.value)
    assert "CTRAINER_PARTITIONS" in str(raised.value)


def test_an_unknown_key_of_ours_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="CTRAINER_WEBPORT"):
        Settings.read({**HOME, "CTRAINER_WEBPORT": "1"})


def test_a_password_is_not_sent_in_clear_unless_the_setting_says_unsafe() -> None:
    clear = {**HOME, "CTRAINER_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
    with pytest.raises(SettingsError, match="CTRAINER_UNSAFE_KAFKA_PLAINTEXT_PASSWORD"):
        Settings.read(clear)
    allowed = Settings.read({**clear, "CTRAINER_UNSAFE_KAFKA_PLAINTEXT_PASSWORD": "true"})
    assert allowed.unsafe() == ("unsafe_kafka_plaintext_password",)


def test_a_password_is_hidden_from_people() -> None:
    settings = Settings.read({**HOME, "CTRAINER_KAFKA_SASL_PASSWORD": "hush"})
    assert "hush" not in repr(settings)


def test_a_child_process_gets_the_same_settings() -> None:
    settings = Settings.read({**HOME, "CTRAINER_WEB_PORT": "0", "CTRAINER_KAFKA_SASL_PASSWORD": "hush"})
    assert Settings.read(settings.environment({**HOME, "CTRAINER_PARTITIONS": "9"})) == settings


GUARD = {"CTRAINER_GUARD_MODEL": "llama-guard", "CTRAINER_GUARD_VERSION": "3"}


@pytest.mark.parametrize("service", ["POLICY", "GUARD"])
@pytest.mark.parametrize(
    ("url", "is_refused"), [("http://opa:8181", True), ("https://opa:8181", False), ("http://localhost:1", False)]
)
def test_a_token_is_not_sent_over_the_network_in_clear(service: str, url: str, *, is_refused: bool) -> None:
    environment = {**HOME, **GUARD, f"CTRAINER_{service}_URL": url, f"CTRAINER_{service}_TOKEN_FILE": "/run/token"}
    if is_refused:
        with pytest.raises(SettingsError, match=f"CTRAINER_{service}_TOKEN_FILE.*https"):
            Settings.read(environment)
    else:
        assert url in Settings.read(environment).model_dump().values()


@pytest.mark.parametrize("service", ["POLICY", "GUARD"])
@pytest.mark.parametrize(
    "url",
    [
        "opa:8181",
        "ftp://opa",
        "http://",
        "http://:8181",
        "http://opa:99999",
        "http://opa:0",
        "http://me:hush@opa:8181",
        "http://opa/?x=1",
        "http://opa/#x",
        "http://opa/a b",
        "http://opa\r\nx: y",
        "http://a..b",
        "http://[::1",
        "http://\N{CYRILLIC SMALL LETTER O}pa",
    ],
)
def test_an_address_that_is_none_stops_the_start(service: str, url: str) -> None:
    with pytest.raises(SettingsError, match=f"CTRAINER_{service}_URL") as refused:
        Settings.read({**HOME, **GUARD, f"CTRAINER_{service}_URL": url})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://opa", "https://opa.policy:8181/prefix/", "http://[::1]:8181", "http://10.0.0.1"]
)
def test_an_address_may_have_a_port_and_a_path(url: str) -> None:
    assert Settings.read({**HOME, "CTRAINER_POLICY_URL": url}).policy_url == url


@pytest.mark.parametrize("missing", GUARD)
def test_a_guard_model_without_name_or_version_stops_the_start(missing: str) -> None:
    named = {key: value for key, value in GUARD.items() if key != missing}
    with pytest.raises(SettingsError, match=missing):
        Settings.read({**HOME, **named, "CTRAINER_GUARD_URL": "http://localhost:8000"})


def test_only_one_guard_can_be_named() -> None:
    with pytest.raises(SettingsError, match="CTRAINER_GUARD_ENCODER"):
        Settings.read(
            {**HOME, **GUARD, "CTRAINER_GUARD_URL": "http://localhost:8000", "CTRAINER_GUARD_ENCODER": "/srv/e"}
        )
