from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.policy import Decision, PolicyInput, PolicyResult, PolicyUnavailableError
from ctrainer.agents.compliance.verdicts import Case, Verdicts
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.identity import canonical_bytes


class Engine:
    """Decides differently for every input and every revision."""

    is_pure = True

    def __init__(self, name: str, revision: str, *, is_down: bool = False, decided_by: str | None = None) -> None:
        self.name = name
        self.revision = revision
        self.is_down = is_down
        self.decided_by = decided_by or name

    def decision(self, one: PolicyInput) -> Decision:
        digest = sha256(canonical_bytes([self.decided_by, self.revision, one])).digest()
        result = PolicyResult(verdict=Verdict.REJECT, score=digest[0] / 255, reasons=(digest.hex(),), redact=())
        return Decision(result=result, decided_by=self.decided_by, policy_revision=self.revision)

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        if self.is_down:
            raise PolicyUnavailableError("down")
        return [self.decision(one) for one in inputs]


class SharedCache:
    """What Redis is: one for all workers, whatever they run."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        self.values.update(values)


FEW = st.sampled_from(["a", "b"])
CASES = st.builds(Case, tenant=FEW, workload=FEW, model=FEW, findings=st.sampled_from([(), (("p", "r", 1.0, "user"),)]))
WORKERS = st.tuples(FEW, FEW, FEW, FEW, st.booleans(), st.booleans())
"""Engine name, policy revision, constitution, detectors, whether the engine is down, whether a fallback decides."""


@given(st.lists(st.tuples(WORKERS, st.lists(CASES, max_size=4)), max_size=12))
async def test_whatever_changes_no_decision_is_ever_another_one_than_a_fresh_one(
    history: list[tuple[tuple[str, str, str, str, bool, bool], list[Case]]],
) -> None:
    cache = SharedCache()
    workers: dict[tuple[str, str, str, str], tuple[Engine, Verdicts]] = {}
    for (name, revision, constitution, detectors, is_down, is_fallback), cases in history:
        place = (name, revision, constitution, detectors)
        if place not in workers:
            engine = Engine(name, revision)
            verdicts = Verdicts(engine, constitution_digest=constitution, detector_version=detectors, cache=cache)
            workers[place] = (engine, verdicts)
        engine, verdicts = workers[place]
        engine.is_down, engine.decided_by = is_down, "fallback" if is_fallback else name
        usual = Engine(name, revision)
        for case, decision in (await verdicts.of(cases)).items():
            one = case.policy_input(constitution)
            assert decision in {usual.decision(one), engine.decision(one)}, "stale, or of another worker's constitution"
            if not is_fallback:
                assert decision == usual.decision(one), "a fallback's decision was kept"


@given(st.lists(CASES, min_size=1, max_size=20))
async def test_each_distinct_case_is_decided_once_and_every_ask_is_counted(cases: list[Case]) -> None:
    answers: Counter[str] = Counter()
    verdicts = Verdicts(Engine("e", "r"), constitution_digest="c", detector_version="d", answers=answers)
    await verdicts.of(cases)
    assert answers["policy"] == len(set(cases))
    await verdicts.of(cases)
    assert (answers["policy"], answers["memory"]) == (len(set(cases)), len(cases))


async def test_an_outage_leaves_a_case_open_and_is_not_remembered() -> None:
    engine, case = Engine("e", "r", is_down=True), Case("t", "w", "m", ())
    verdicts = Verdicts(engine, constitution_digest="c", detector_version="d")
    assert await verdicts.of([case]) == {}
    engine.is_down = False
    assert set(await verdicts.of([case])) == {case}
