import json
import time

import pytest
import yaml

from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner
from ctrainer.agents.compliance.loading import ConstitutionError, default_constitution, load_constitution


def principle(**changes: object) -> dict[str, object]:
    rule = {"id": "r", "label": "R", "pattern": "abc"}
    return {"id": "p", "statement": "s", "severity": "low", "action": "reject", "rules": [rule]} | changes


def document(*principles: dict[str, object], **changes: object) -> str:
    whole = {
        "id": "c",
        "version": "1",
        "governance_hash": "cdd01ef066bc6cf2",
        "languages": ["en"],
        "principles": list(principles or (principle(),)),
    }
    return yaml.safe_dump(whole | changes)


def faults_of(text: str) -> str:
    with pytest.raises(ConstitutionError) as refused:
        load_constitution(text)
    return "\n".join(refused.value.faults)


def test_the_default_constitution_loads_with_the_declared_hash() -> None:
    constitution = default_constitution()
    assert constitution.governance_hash == "cdd01ef066bc6cf2"
    assert {"privacy-contact", "secrets", "weapons", "prompt-injection"} <= {one.id for one in constitution.principles}
    assert sum(len(one.rules) for one in constitution.principles) >= 60


AREAS = {
    "privacy and personal data": "privacy-contact",
    "secrets": "secrets",
    "violent crime": "violence",
    "weapons": "weapons",
    "hate": "hate",
    "harassment": "harassment",
    "self-harm": "self-harm",
    "sexual content": "sexual-content",
    "child safety": "child-safety",
    "fraud and deception": "fraud",
    "discrimination": "discrimination",
    "manipulation and human autonomy": "manipulation",
    "prompt injection": "prompt-injection",
    "tool misuse": "tool-misuse",
    "unsafe professional advice": "professional-advice",
    "copyright": "copyright",
    "transparency and over-refusal": "transparency",
}


def test_every_area_has_a_principle_with_all_that_it_needs() -> None:
    principles = {one.id: one for one in default_constitution().principles}
    assert set(AREAS.values()) <= set(principles)
    for name, one in principles.items():
        assert one.statement.endswith("."), name
        assert one.critique.endswith("."), name
        assert one.revision.endswith("."), name
        assert one.rules, name
        assert one.hazard is not None or name in {"transparency", "language"}, "the taxonomy has no code for these"


def test_the_digest_follows_the_content_and_not_the_notation() -> None:
    loaded = load_constitution(document())
    assert loaded.digest == load_constitution("# a comment\n" + document()).digest
    assert loaded.digest != load_constitution(document(version="2")).digest


def test_all_faults_are_told_at_once() -> None:
    rules = [
        {"id": "r", "label": "R", "pattern": "(?=look)ahead"},
        {"id": "r", "label": "R", "pattern": "fine", "validator": "astrology"},
    ]
    detecting = [
        {"id": "both", "label": "R", "pattern": "a", "detector": "harm-score"},
        {"id": "odd-one", "label": "R", "detector": "oracle"},
    ]
    faults = faults_of(
        document(
            principle(rules=rules),
            principle(action="revise"),
            principle(id="empty", rules=[]),
            principle(id="odd", severity="purple"),
            principle(id="detecting", rules=detecting),
            governance_hash="0000",
        )
    )
    for expected in (
        "governance_hash: got '0000'",
        "principle p: is there 2 times",
        "rule r: is there 3 times",
        "rule r: the pattern does not compile",
        "unknown validator 'astrology'",
        "action revise without prompts",
        "rule both: expected either a pattern or a detector",
        "unknown detector 'oracle'",
        "harm-score needs a hazard",
        "principle empty: is enforced without rules",
        "principles.3.severity",
    ):
        assert expected in faults


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*b", "(.*)*x{900}", "(x+x+)+y"])
def test_a_pattern_that_would_never_end_elsewhere_is_judged_at_once_here(pattern: str) -> None:
    scanner = PatternScanner([Pattern(text=pattern)])
    text = "a" * 50_000 + "!" + "x" * 50_000
    started = time.process_time()
    for number in scanner.candidates(text.encode()) | {0}:
        list(scanner.spans(number, text, text.encode()))
    assert time.process_time() - started < 2.0, "a backtracking engine takes longer than the age of the world"


def test_what_other_readers_take_for_truth_or_a_date_is_the_text_that_stands_there() -> None:
    text = document(principle(), principle(id="later", mode="shadow", rules=[])).replace("mode: shadow", "mode: off")
    loaded = load_constitution(text.replace("- en", "- no").replace("version: '1'", "version: 2024-01-01"))
    assert (loaded.principles[1].mode.value, loaded.languages, loaded.version) == ("off", ("no",), "2024-01-01")


def test_an_anchor_may_be_merged_and_changed() -> None:
    merged = (
        "x-a: &a {id: p, statement: s, severity: low, action: reject}\n"
        + document(version="v1").partition("principles:")[0]
    )
    text = merged + "version: v1\nprinciples: [{<<: *a, severity: high, rules: [{id: r, label: R, pattern: a}]}]"
    assert load_constitution(text).principles[0].severity.value == "high"


def test_a_fault_says_what_was_expected_and_is_told_once() -> None:
    faults = faults_of(document(principle(severity="purple")) + "id: again\n").splitlines()
    assert faults == [
        "principles.0.severity: Input should be 'low', 'medium', 'high' or 'critical'",
        "line 15: the key 'id' is there twice",
    ]


def test_a_principle_without_rules_may_be_observed() -> None:
    observed = principle(id="later", mode="shadow", rules=[])
    assert len(load_constitution(document(principle(), observed)).principles) == 2


def test_a_document_of_five_thousand_principles_is_read_at_once() -> None:
    many = [
        principle(id=f"p{number}", rules=[{"id": f"r{number}", "label": "R", "pattern": f"word{number}"}])
        for number in range(5_000)
    ]
    text = json.dumps(yaml.safe_load(document()) | {"principles": many})
    started = time.process_time()
    assert len(load_constitution(text).principles) == 5_000
    assert time.process_time() - started < 2.0, "read as YAML it takes several times as long"


def test_a_document_with_twenty_thousand_faults_is_refused_at_once() -> None:
    many = [{"id": f"p{number}", "severity": "purple", "action": "ask", "statement": "s"} for number in range(10_000)]
    text = json.dumps(yaml.safe_load(document()) | {"principles": many})
    started = time.process_time()
    assert faults_of(text).count("principles.") >= 20_000
    assert time.process_time() - started < 5.0


def test_aliases_make_no_long_document_of_a_short_one() -> None:
    text = "x-p: &p {id: p, statement: s, severity: low, action: reject, rules: [{id: r, label: R, pattern: a}]}\n"
    started = time.process_time()
    assert "principles" in faults_of(text + document().replace("principles:", f"principles: [{'*p,' * 300_000}]\nx-q:"))
    assert time.process_time() - started < 20.0


@pytest.mark.parametrize("number", ["true", "'0.5'", ".inf", "-1", "0"])
def test_what_is_no_number_is_no_threshold(number: str) -> None:
    text = document().replace("severity: low", f"severity: low\n  threshold: {number}")
    assert text != document()
    assert "threshold" in faults_of(text)


@pytest.mark.parametrize("changes", [{"id": "again"}, {"minimum_score": float("nan")}])
def test_json_has_the_faults_that_the_same_text_has_as_yaml(changes: dict[str, object]) -> None:
    text = json.dumps(yaml.safe_load(document()))[:-1] + ", " + json.dumps(changes)[1:]
    assert faults_of(text) == faults_of("# no JSON\n" + text).replace("line 2", "line 1")


def test_json_and_yaml_mean_the_same() -> None:
    loaded = load_constitution(document(principle(mode="enforce", statement="d\u00e9j\u00e0\n \U0001f600 'x' / \\ \t")))
    assert load_constitution(json.dumps(json.loads(loaded.to_json()))) == loaded
    assert load_constitution("# no JSON\n" + loaded.to_json().decode()) == loaded


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "principles: {}",
        document(principle(mode="off")),
        "principles: &a [*a]",
        "principles: [&a {id: *a}]",
        ALIASES + "principles: *i",
        "[" * 50_000,
        '{"a":' * 50_000,
        "x" * 1_048_577,
        document() + "id: other\n",
        document().replace("severity: low", "severity: low\n  mode: 'off'\n  mode: enforce"),
        document() + "minimum_score: " + "9" * 5_000,
        document() + "minimum_score: .nan",
        document() + "x-run: !!python/object/apply:os.system [ls]",
        document() + "? [a]\n: b",
        document() + "---\nid: other",
        document(principle(rules=[{"id": "r", "label": "R", "pattern": "(x{1000}){1000}"}])),
        document(principle(rules=[{"id": "r", "label": "R", "pattern": "((a{1,100}){1,100}){1,100}"}])),
        document(principle(rules=[{"id": "r", "label": "R", "pattern": "x*"}])),
        document(principle(rules=[{"id": "r", "label": "R", "pattern": "a", "allow": ["(a+)+$", "(?=a)"]}])),
    ],
)
def test_what_is_no_constitution_is_refused(text: str) -> None:
    assert faults_of(text)
