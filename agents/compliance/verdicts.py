"""Policy decisions, asked for once: remembered here, then in a cache shared with other workers, then decided."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct
from pydantic import ValidationError

from ctrainer.agents.compliance.policy import Decision, PolicyEngine, PolicyError, PolicyUnavailableError, outage
from ctrainer.schemas.identity import canonical_bytes, content_digest

REMEMBERED: Final = 16_384
"""Decisions kept in this process; about 10 MB."""


class Case(Struct, frozen=True, cache_hash=True):
    """All of a sample that the policy may depend on: equal for samples that differ only in text and places.

    `findings` are the distinct (principle, rule, score, role) in order.
    """

    tenant: str
    workload: str
    model: str
    findings: tuple[tuple[str, str, float, str], ...]

    def policy_input(self, constitution_digest: str) -> dict[str, Any]:
        """Return the input of the policy."""
        keys = ("principle", "rule", "score", "role")
        return {
            "constitution": constitution_digest,
            "tenant": self.tenant,
            "workload": self.workload,
            "model": self.model,
            "findings": [dict(zip(keys, finding, strict=True)) for finding in self.findings],
        }


class VerdictCache(Protocol):
    """Decisions of other workers. It may forget at any time and must never answer for another key."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        ...

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Keep values for a while."""
        ...


class Verdicts:
    """Decides each distinct case once, under one constitution, one policy and one set of detectors.

    The key of a decision is a digest of all that it depends on, so none is ever stale. What another layer decided
    while the engine was down is used and not kept, nor is what an engine decides that may change its mind. `outage` is
    the decision on what could not be decided. `answers` counts where decisions came from: `memory`, `shared` or
    `policy`.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        *,
        constitution_digest: str,
        detector_version: str,
        cache: VerdictCache | None = None,
        answers: Counter[str] | None = None,
    ) -> None:
        self.outage = outage(engine.revision)
        self._engine = engine
        self._digest = constitution_digest
        self._versions = [engine.name, engine.revision, detector_version]
        self._cache = cache if engine.is_pure else None
        self._answers: Counter[str] = Counter() if answers is None else answers
        self._known: OrderedDict[Case, Decision] = OrderedDict()

    async def of(self, cases: Iterable[Case]) -> dict[Case, Decision]:
        """Return the decision on each case; what no layer could be asked about is left out and never remembered.

        Raises:
            PolicyError: a case has no decision.
        """
        asked = list(cases)
        distinct = dict.fromkeys(asked)
        decisions = self._remembered(distinct)
        missing = [case for case in distinct if case not in decisions]
        remembered = sum(case in decisions for case in asked) if missing else len(asked)
        shared = await self._shared(missing) if missing else {}
        undecided = [case for case in missing if case not in shared]
        decided = await self._decided(undecided) if undecided else {}
        self._answers.update(memory=remembered, shared=len(shared), policy=len(decided))
        return {**decisions, **shared, **decided}

    async def can_be_asked(self) -> bool:
        """Return whether a policy layer answers now, about a case without findings; nothing is remembered of it."""
        nobody = Case("nobody", "nothing", "none", ())
        try:
            await self._engine.evaluate([nobody.policy_input(self._digest)])
        except PolicyError as error:
            return not isinstance(error, PolicyUnavailableError)
        return True

    def _remembered(self, cases: Iterable[Case]) -> dict[Case, Decision]:
        found: dict[Case, Decision] = {}
        for case in cases:
            decision = self._known.get(case)
            if decision is not None:
                self._known.move_to_end(case)
                found[case] = decision
        return found

    async def _shared(self, cases: Sequence[Case]) -> dict[Case, Decision]:
        if self._cache is None:
            return {}
        values = await self._cache.get_many([self._key(case) for case in cases])
        read = {case: _read(value) for case, value in zip(cases, values, strict=True)}
        found = {case: decision for case, decision in read.items() if decision is not None}
        self._remember(found)
        return found

    async def _decided(self, cases: Sequence[Case]) -> dict[Case, Decision]:
        inputs = [case.policy_input(self._digest) for case in cases]
        try:
            decided = dict(zip(cases, await self._engine.evaluate(inputs), strict=True))
        except PolicyUnavailableError:
            return {}
        if not self._engine.is_pure:
            return decided
        lasting = {case: found for case, found in decided.items() if found.decided_by == self._engine.name}
        self._remember(lasting)
        if self._cache is not None and lasting:
            await self._cache.put_many({self._key(case): found.to_json() for case, found in lasting.items()})
        return decided

    def _remember(self, decisions: Mapping[Case, Decision]) -> None:
        self._known.update(decisions)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _key(self, case: Case) -> str:
        return content_digest(canonical_bytes([self._versions, case.policy_input(self._digest)]))


def _read(value: bytes | None) -> Decision | None:
    """Return a cached decision; what cannot be read counts as absent."""
    try:
        return Decision.model_validate_json(value) if value is not None else None
    except ValidationError:
        return None
