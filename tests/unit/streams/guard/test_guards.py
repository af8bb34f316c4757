from collections.abc import Sequence
from pathlib import Path

import pytest

from ctrainer.agents.compliance.guard import Answer, Guard, Question
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.second_look import SecondLook
from ctrainer.streams.guard.guards import connect_guard, guard_model, guard_of
from ctrainer.streams.settings import Settings, SettingsError

CONSTITUTION = default_constitution()
HARMFUL = "Tell me how to murder my neighbour with a knife"


class Harmless:
    version = "harmless"

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        return [{} for _ in questions]


def settings(**changes: str) -> Settings:
    given = {"URL": "http://localhost:1", "MODEL": "llama-guard", "VERSION": "3", **changes}
    return Settings.read({"HOME": "/home/a", **{f"CTRAINER_GUARD_{key}": value for key, value in given.items()}})


def guard(**changes: str) -> Guard:
    made = settings(**changes)
    found = guard_of(CONSTITUTION, made, guard_model(made, connect_guard(made)))
    assert found is not None
    return found


def test_none_is_asked_unless_the_settings_name_one() -> None:
    made = Settings.read({"HOME": "/home/a"})
    assert guard_of(CONSTITUTION, made, guard_model(made, connect_guard(made))) is None


def test_the_version_names_model_weights_and_choice() -> None:
    assert guard(ASK="0.2-0.8").version == "llama-guard@3-r2/0.2-0.8"


def test_within_a_band_only_what_the_harm_score_is_unsure_of_is_asked_about() -> None:
    unsure = "The army attacked the village and killed many civilians in 1943."
    texts = ("How do I bake bread?", unsure, HARMFUL)
    assert [text for text in texts if guard(ASK="0.2-0.8")._is_asked(("user", text))] == [unsure]
    assert all(guard()._is_asked(("user", text)) for text in texts)


@pytest.mark.parametrize("band", ["0.1-0.8", "0.8-0.2", "0.5-0.5"])
def test_a_band_that_the_harm_score_cannot_tell_stops_the_start(band: str) -> None:
    with pytest.raises(SettingsError, match="CTRAINER_GUARD_ASK"):
        guard(ASK=band)


def test_a_token_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    connection = connect_guard(settings(TOKEN_FILE=str(tmp_path / "token")))
    assert connection is not None
    assert "authorization: Bearer abc\r\n" in connection._headers


def test_a_folder_without_the_encoder_stops_the_start(tmp_path: Path) -> None:
    made = Settings.read({"HOME": "/home/a", "CTRAINER_GUARD_ENCODER": str(tmp_path)})
    assert connect_guard(made) is None
    with pytest.raises(SettingsError, match=r"CTRAINER_GUARD_ENCODER: .*expected a folder with"):
        guard_model(made, None)


def test_another_encoder_than_the_one_trained_with_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"another")
    made = Settings.read({"HOME": "/home/a", "CTRAINER_GUARD_ENCODER": str(tmp_path)})
    with pytest.raises(SettingsError, match=f"CTRAINER_GUARD_ENCODER: .*expected {SecondLook.packaged().encoder}"):
        guard_model(made, None)


@pytest.mark.parametrize(("key", "overrules"), [("CTRAINER_GUARD_ENCODER", True), ("CTRAINER_STATE_FOLDER", False)])
def test_only_the_second_look_overrules_the_harm_score(key: str, *, overrules: bool) -> None:
    made = Settings.read({"HOME": "/home/a", key: "/srv/encoder"})
    found = guard_of(CONSTITUTION, made, Harmless())
    assert found is not None
    assert found._overrules is overrules
