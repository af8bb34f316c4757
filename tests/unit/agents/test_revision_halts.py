import pytest

from ctrainer.agents.revision import MOST_LOSSES, ReviserLostError
from ctrainer.schemas.envelope import Event
from ctrainer.schemas.revision import RevisionResumed
from ctrainer.trainer.collapse import LEAST
from tests.unit.agents.conftest import InMemoryTopics
from tests.unit.agents.test_revision import Flow, Unreachable, collapsed, of


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


async def test_samples_of_two_partitions_that_kill_the_model_in_turn_both_go_to_a_person(flow: Flow) -> None:
    await flow.screen()
    (first,) = flow.waiting()
    killers = (first, first._replace(partition=1, offset=7))
    stage = flow.stage(Unreachable(error=ReviserLostError, times=100))
    for _ in range(MOST_LOSSES):
        for killer in killers:
            with pytest.raises(ReviserLostError):
                await stage(of(killer))
    for killer in killers:
        flow.deliver(await stage(of(killer)))
        assert (flow.last().verdict, flow.last().reasons) == ("review", ("civil", "revision:model-lost"))


async def test_why_a_halt_was_lifted_is_told_without_what_the_constitution_redacts(flow: Flow) -> None:
    await collapsed(flow)
    (answer,) = await flow.resume(key_id="root", reason="mended, says ann@shop.example")
    assert Event[RevisionResumed].from_json(answer.value).data.reason == "mended, says <EMAIL_1>"
