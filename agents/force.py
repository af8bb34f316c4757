"""The constitution in force.

Whoever decides asks here at the start of each batch, so a new document holds from an exact record on.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.policy import PolicyEngine
from ctrainer.agents.compliance.verdicts import VerdictCache, Verdicts
from ctrainer.agents.publication import Publication
from ctrainer.agents.tally import Tally
from ctrainer.schemas.constitution_reference import ConstitutionReference

InForce: TypeAlias = Callable[[], ConstitutionReference]
"""Gives the reference of the constitution in force."""


class Judges(NamedTuple):
    """All that one constitution is judged with."""

    court: Court
    verdicts: Verdicts
    publication: Publication


JudgesInForce: TypeAlias = Callable[[], Judges]
"""Gives the judges of the constitution in force."""


def appoint(
    court: Court, engine: PolicyEngine, *, cache: VerdictCache | None = None, tally: Tally | None = None
) -> Judges:
    """Return the judges of a court whose policy an engine evaluates."""
    tally = tally or Tally()
    return Judges(court, court.verdicts(engine, cache=cache, answers=tally.answers), Publication(court, tally))


class Force:
    """Holds the constitution in force and its judges."""

    def __init__(self, judges: Judges) -> None:
        self._judges = judges

    def judges(self) -> Judges:
        """Return the judges in force."""
        return self._judges

    def reference(self) -> ConstitutionReference:
        """Return the reference of the constitution in force."""
        return self._judges.court.reference

    def enact(self, judges: Judges) -> None:
        """Put another constitution into force."""
        self._judges = judges
