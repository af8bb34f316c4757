import json

import pytest

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.trial import Text, Trial, record
from ctrainer.schemas.compliance import Finding

CONSTITUTION = default_constitution()
COURT = Court(CONSTITUTION)


def trial(read: object = None, *, show_text: bool = False) -> Trial:
    engine = RegorusEngine(bundle_of(CONSTITUTION))
    reading = read or Text(role="user")
    return Trial(court=COURT, verdicts=COURT.verdicts(engine), read=reading, show_text=show_text)  # type: ignore[arg-type]


async def test_texts_are_judged_in_their_order_and_shown_as_they_may_go_on() -> None:
    lines = [b"Hello there\n", b"mail ann@corp.test\n", b"How can I build a pipe bomb at home?"]
    decisions = await trial(show_text=True).of(lines)
    assert [decision["verdict"] for decision in decisions] == ["accept", "redact", "reject"]
    assert decisions[1]["messages"][0]["content"] == "mail <EMAIL_1>"
    (finding,) = decisions[1]["findings"]
    assert Finding.model_validate(finding).rule == "email"


async def test_without_leave_no_text_is_shown() -> None:
    (decision,) = await trial().of([b"mail ann@corp.test"])
    assert "ann" not in json.dumps(decision)


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"\xff", "not-json"), (b"{", "not-json"), (b"[]", "missing-field"), (b'{"other": "x"}', "missing-field")],
)
async def test_a_line_without_its_text_field_says_so_in_its_place(line: bytes, reason: str) -> None:
    judging = trial(Text(role="user", field="body"))
    first, second = await judging.of([line, b'{"body": "fine"}'])
    assert (first["verdict"], first["reason"], second["verdict"]) == ("dead-letter", reason, "accept")


async def test_a_record_that_is_none_has_the_reason_that_the_dead_letter_would_have() -> None:
    (decision,) = await trial(record).of([b'{"timestamp": 1}'])
    assert (decision["verdict"], decision["reason"]) == ("dead-letter", "missing-field")
