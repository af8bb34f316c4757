"""Samples about which nobody answers: there is an outage, which ends, or a model or an engine always fails over them.

Which it is shows in whether something else is answered right before.
"""

from typing import TypeAlias

from ctrainer.agents.compliance.judgement import Examination
from ctrainer.agents.compliance.policy import Decision, PolicyResult
from ctrainer.agents.compliance.shape import ShapedSample
from ctrainer.agents.force import Judges
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.constitution import Action

Judged: TypeAlias = tuple[Examination, Decision]
_LEFT = (Action.REVIEW, Action.REVISE)


class PolicyOutageError(ConnectionError):
    """What the sample waits for cannot be asked yet: the stage waits where it is, and nothing is lost."""


async def others_are_answered(judges: Judges) -> bool:
    """Return whether policy and guard model answer now, whatever they say of what nobody ever asked them."""
    guard = judges.court.guard
    if guard is not None and not guard.unsafe_without and not await guard.can_be_asked():
        return False
    return await judges.verdicts.can_be_asked()


async def decided_alone(judges: Judges, sample: ShapedSample) -> Judged:
    """Return what was seen in a sample and the decision on it; one that parks where others alone are answered.

    A sample that got no answer is asked about a second time, right after something else was answered.

    Raises:
        PolicyOutageError: no policy layer answers, or no guard model.
    """
    (judged,) = await judges.court.decide(judges.verdicts, [judges.court.examine(sample)])
    if judged[1].result.verdict is not Verdict.PARK:
        return judged
    if not await others_are_answered(judges):
        raise PolicyOutageError(f"{judged[1].result.reasons[0]}: waiting")
    (again,) = await judges.court.decide(judges.verdicts, [judges.court.examine(sample)])
    return again


def silent(outage: Decision) -> str:
    """Return who did not answer about a parked sample: `guard` or `policy`."""
    return outage.result.reasons[0].removesuffix("-unavailable")


def left_to_person(examination: Examination, outage: Decision, *, decided_by: str) -> Decision:
    """Return the decision that a person has to make since nobody else answers; it redacts by what was found."""
    breached = sorted(one for action in _LEFT for one in examination.breached(action))
    result = PolicyResult(
        verdict=Verdict.REVIEW,
        score=0.0,
        reasons=(*breached, f"{silent(outage)}-never-answered"),
        redact=examination.breached(Action.REDACT),
    )
    return Decision(result=result, decided_by=decided_by, policy_revision=outage.policy_revision)
