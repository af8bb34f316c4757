import pytest

from ctrainer.schemas.envelope import Event
from ctrainer.schemas.revision import RevisionResumed
from ctrainer.trainer.collapse import LEAST
from tests.unit.agents.conftest import InMemoryTopics
from tests.unit.agents.test_revision import Flow, collapsed


@pytest.fixture
def flow(topics: InMemoryTopics) -> Flow:
    return Flow(topics)


async def test_answers_that_differ_only_in_what_is_left_out_halt_no_model(flow: Flow) -> None:
    for number in range(LEAST + 2):
        who = "".join(chr(ord("a") + int(digit)) for digit in f"{number:06}")
        told = f"You fool of a {who} {who[::-1]} {who * 2} {who * 3}. The parcel comes by train on Monday or Tuesday."
        await flow.screen(told)
    model = await flow.revise()
    assert len(flow.accepted()) == LEAST + 2
    assert (model.asked, flow.tally.halted) == ([], {})


async def test_why_a_halt_was_lifted_is_told_without_what_the_constitution_redacts(flow: Flow) -> None:
    await collapsed(flow)
    (answer,) = await flow.resume(key_id="root", reason="mended, says ann@shop.example")
    assert Event[RevisionResumed].from_json(answer.value).data.reason == "mended, says <EMAIL_1>"
