import doctest
import json
from pathlib import Path

import pytest

from benchmarks.labelled_turns import LabelledTurn, labelled_turns
from benchmarks.unseen import EITHER, PRINCIPLES, principle_of
from ctrainer.agents.compliance.conversation import Call, CalledFunction, Turn
from ctrainer.agents.compliance.detectors import repeated
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.redaction import redact
from ctrainer.schemas.constitution import Action

DETECTORS = Court(default_constitution()).detectors
UNSEEN = [
    turn
    for path in sorted(Path(__file__).parent.glob("unseen_personal_data*.yaml"))
    for turn in labelled_turns(path)
    if any(span.kind != EITHER for span in turn.spans)
]


def said(role: str, content: str, *calls: Call) -> Turn:
    return Turn(role=role, content=content, tool_calls=list(calls), tool_call_id=None, name=None)  # type: ignore[typeddict-item]


def calling(arguments: str) -> Turn:
    return said("assistant", "", Call(id="c", type="function", function=CalledFunction(name="f", arguments=arguments)))


def found(messages: list[Turn]) -> list[Found]:
    return [
        one for one in DETECTORS.find(messages, ()) if principle_of(one) in PRINCIPLES and one.asks_for(Action.REDACT)
    ]


def redacted(messages: list[Turn]) -> list[Turn]:
    return list(redact(messages, (), found(messages)).messages)


def arguments_of(turn: Turn) -> str:
    return turn["tool_calls"][0]["function"]["arguments"]


def test_the_documentation_is_true() -> None:
    assert doctest.testmod(repeated).failed == 0


def test_a_password_is_redacted_wherever_it_is_said_again() -> None:
    messages = [
        said("user", "My password is Regenbogen_19, the mail box of Ulla."),
        calling(json.dumps({"key": "Regenbogen_19", "mode": "Regenbogen_190"})),
        said("assistant", "Regenbogen_19 is too short."),
    ]
    after = redacted(messages)
    assert after[0]["content"] == "My password is <PASSWORD_1>, the mail box of Ulla."
    assert json.loads(arguments_of(after[1])) == {"key": "<PASSWORD_1>", "mode": "Regenbogen_190"}
    assert after[2]["content"] == "<PASSWORD_1> is too short."


def test_a_number_is_redacted_also_where_it_is_said_without_its_signs() -> None:
    after = redacted([said("user", "sort code 20-32-06, account number 1099 3987"), said("assistant", "So 10993987.")])
    assert after[1]["content"] == "So <BANK_ACCOUNT_1>."


@pytest.mark.parametrize("again", ["It took 318 s.", "There are 4482 of them."])
def test_what_is_short_is_left_where_it_can_be_anything(again: str) -> None:
    after = redacted([said("user", "card security code 318, my PIN is 4482"), said("assistant", again)])
    assert after[1]["content"] == again


def test_a_sample_with_thousands_of_values_costs_no_more_than_looking_for_some() -> None:
    text = " ".join(f"with password Harbour{number}!" for number in range(20_000))
    assert len(found([said("user", text), said("assistant", "Harbour7! Harbour19999!")])) == 20_001


@pytest.mark.parametrize("turn", UNSEEN, ids=range(len(UNSEEN)))
def test_a_redacted_conversation_is_valid_consistent_and_final(turn: LabelledTurn) -> None:
    note = {"note": turn.text, "said": [turn.text[span.start : span.end] for span in turn.spans]}
    before = [said("user", turn.text), calling(json.dumps(note)), said("assistant", f"You said:\n{turn.text}")]
    user, call, answer = after = redacted(before)
    assert json.loads(arguments_of(call))["note"] == user["content"]
    assert answer["content"] == f"You said:\n{user['content']}"
    assert found(after) == []
