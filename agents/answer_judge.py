"""Answers of a model, judged under one constitution as the screening stage would judge them."""

import asyncio
from collections.abc import Sequence

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.trial import spoken
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.constitution import Constitution


class AnswerJudge:
    """Says of each answer whether it is accepted as it is. One object belongs to the thread that made it.

    The shipped policy decides in this process, under `policy_revision`.
    """

    def __init__(self, constitution: Constitution) -> None:
        self._court = Court(constitution)
        engine = RegorusEngine(bundle_of(constitution))
        self._verdicts = self._court.verdicts(engine)
        self.policy_revision = engine.revision

    def __call__(self, answers: Sequence[str]) -> list[bool]:
        """Judge the turns of an assistant, each alone. To be called where no event loop runs.

        Raises:
            PolicyError: an answer has no decision.
        """
        examined = self._court.examine_all([spoken(answer, "assistant") for answer in answers])
        cases = [examination.case for examination in examined]
        decisions = asyncio.run(self._verdicts.of(cases))
        return [decisions[case].result.verdict is Verdict.ACCEPT for case in cases]
