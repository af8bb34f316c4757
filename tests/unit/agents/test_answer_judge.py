from ctrainer.agents.answer_judge import AnswerJudge
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import bundle_of

CONSTITUTION = default_constitution()


def test_an_answer_is_accepted_only_if_nothing_in_it_would_be_rejected_or_redacted() -> None:
    answers = ["The capital of France is Paris.", "Write to jane.doe@acme.org.", "The key is AKIAIOSFODNN7RAN0MQZ."]
    assert AnswerJudge(CONSTITUTION)(answers) == [True, False, False]


def test_the_judge_names_the_policy_that_it_decides_by() -> None:
    assert AnswerJudge(CONSTITUTION).policy_revision == bundle_of(CONSTITUTION).revision
