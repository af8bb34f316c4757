"""Reading a constitution: a document that this version cannot carry out in full is refused with all its faults."""

from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import islice
from typing import Any

from pydantic import ValidationError

from ctrainer.agents.compliance.detectors.detection import patterns_of
from ctrainer.agents.compliance.detectors.names import DETECTORS, HARM_SCORE
from ctrainer.agents.compliance.detectors.patterns import are_in_dialect, fault_of_expression, fault_of_pattern
from ctrainer.agents.compliance.detectors.validators import VALIDATORS
from ctrainer.agents.compliance.yaml_document import YamlError, read_yaml
from ctrainer.schemas.constitution import MOST_PRINCIPLES, Action, Constitution, Mode, Principle, Rule
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.errors import ConstitutionalTrainerError

MOST_CHARACTERS = 1_048_576


class ConstitutionError(ConstitutionalTrainerError):
    """A document cannot be used. `faults` names everything that must be mended."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("constitution: mend the following and load it again:\n" + "\n".join(self.faults))


def default_constitution() -> Constitution:
    """Return the constitution that comes with this package."""
    text = files("ctrainer.agents.compliance").joinpath("constitution.yaml").read_text(encoding="utf-8")
    return load_constitution(text)


def load_constitution(text: str, *, governance_hash: str = GOVERNANCE_HASH) -> Constitution:
    """Read a document from YAML. Keys that begin with `x-` only hold anchors and are not part of it.

    Raises:
        ConstitutionError: with every fault of the document.
    """
    document, faults = _parse(text)
    faults += _governance_faults(document, governance_hash)
    try:
        constitution = Constitution.model_validate(document)
    except ValidationError as error:
        readable = list(_readable_principles(document.get("principles")))
        raise ConstitutionError(
            [*_field_faults(error), *faults, *_faults(readable), *_hyperscan_faults(readable)]
        ) from error
    faults += [*_faults(constitution.principles), *_enforcement_faults(constitution)]
    # What is compiled as a whole here is what judging needs; one by one it would take as long again.
    if faults or not are_in_dialect(patterns_of(constitution)):
        faults += _hyperscan_faults(constitution.principles)
    if faults:
        raise ConstitutionError(faults)
    return constitution


def _parse(text: str) -> tuple[dict[str, Any], list[str]]:
    if len(text) > MOST_CHARACTERS:
        raise ConstitutionError([f"document: got {len(text)} characters, expected at most {MOST_CHARACTERS}"])
    try:
        document, repeated = read_yaml(text)
    except YamlError as error:
        raise ConstitutionError([f"document: {error}"]) from error
    if not isinstance(document, dict):
        raise ConstitutionError(["document: expected a mapping with id, version, governance_hash and principles"])
    return {name: value for name, value in document.items() if not str(name).startswith("x-")}, repeated


def _field_faults(error: ValidationError) -> Iterator[str]:
    """Yield what is wrong with each field; a list that is too short only for faults inside it is not one more."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    outer = {fault["loc"][:depth] for fault in faults for depth in range(len(fault["loc"]))}
    for fault in faults:
        place = fault["loc"]
        if not (fault["type"] == "too_short" and place in outer):
            yield f"{'.'.join(map(str, place)) or 'document'}: {fault['msg']}"


def _readable_principles(documents: object) -> Iterator[Principle]:
    """Yield the principles that can be read alone, so that their faults are told together with the others'."""
    for document in islice(documents, MOST_PRINCIPLES) if isinstance(documents, list) else ():
        try:
            yield Principle.model_validate(document)
        except ValidationError:
            continue


def _governance_faults(document: dict[str, Any], expected: str) -> Iterator[str]:
    found = document.get("governance_hash")
    if found is not None and found != expected:
        yield f"governance_hash: got {found!r}, expected {expected!r}"


def _enforcement_faults(constitution: Constitution) -> Iterator[str]:
    if not any(principle.mode is Mode.ENFORCE for principle in constitution.principles):
        yield "principles: none is enforced, expected at least one with mode: enforce"


def _faults(principles: Iterable[Principle]) -> Iterator[str]:
    known = list(principles)
    yield from _duplicates("principle", (principle.id for principle in known))
    yield from _duplicates("rule", (rule.id for principle in known for rule in principle.rules))
    for principle in known:
        yield from _principle_faults(principle)


def _duplicates(kind: str, ids: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(ids).items():
        if count > 1:
            yield f"{kind} {name}: is there {count} times, expected once"


def _principle_faults(principle: Principle) -> Iterator[str]:
    if principle.mode is Mode.ENFORCE and not principle.rules:
        yield f"principle {principle.id}: is enforced without rules, expected at least one, or mode: off"
    if principle.action is Action.REVISE and not (principle.critique and principle.revision):
        yield f"principle {principle.id}: action revise without prompts, expected critique and revision"
    for rule in principle.rules:
        yield from _rule_faults(rule)
        yield from _detector_faults(rule, principle)


def _detector_faults(rule: Rule, principle: Principle) -> Iterator[str]:
    if (rule.pattern is None) == (rule.detector is None):
        yield f"rule {rule.id}: expected either a pattern or a detector"
    if rule.detector is not None and rule.detector not in DETECTORS:
        yield f"rule {rule.id}: unknown detector {rule.detector!r}, expected one of {', '.join(sorted(DETECTORS))}"
    if rule.detector == HARM_SCORE and principle.hazard is None:
        yield f"rule {rule.id}: {HARM_SCORE} needs a hazard, expected one at principle {principle.id}"
    if rule.detector is not None and principle.action is Action.REDACT:
        yield f"rule {rule.id}: a detector has no span to redact, expected another action than redact"


def _rule_faults(rule: Rule) -> Iterator[str]:
    if rule.validator is not None and rule.validator not in VALIDATORS:
        yield f"rule {rule.id}: unknown validator {rule.validator!r}, expected one of {', '.join(sorted(VALIDATORS))}"
    for expression in (rule.pattern, *rule.allow):
        fault = fault_of_expression(expression) if expression is not None else None
        if fault is not None:
            yield f"rule {rule.id}: the pattern does not compile: {fault}"


def _hyperscan_faults(principles: Iterable[Principle]) -> Iterator[str]:
    """Yield the faults of patterns that RE2 takes and Hyperscan does not."""
    for rule in (rule for principle in principles for rule in principle.rules if rule.pattern is not None):
        if fault_of_expression(rule.pattern or "") is None:
            fault = fault_of_pattern(rule.pattern or "", ignore_case=rule.ignore_case)
            if fault is not None:
                yield f"rule {rule.id}: the pattern does not compile: {fault}"
