from ctrainer.agents.compliance.comparison import changes
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.schemas.constitution import Mode

CONSTITUTION = default_constitution()


def test_a_constitution_does_not_differ_from_itself() -> None:
    assert changes(CONSTITUTION, CONSTITUTION) == []


def test_every_difference_is_named_by_its_place() -> None:
    first, *others = CONSTITUTION.principles
    observed = first.model_copy(update={"mode": Mode.SHADOW, "rules": first.rules[1:]})
    new = CONSTITUTION.model_copy(update={"version": "9", "principles": (observed, *others[1:])})
    found = {place: (was, now) for place, was, now in changes(CONSTITUTION, new)}
    assert found["version"] == (CONSTITUTION.version, "9")
    assert found[f"{first.id}.mode"] == ("enforce", "shadow")
    assert found[f"{first.id}/{first.rules[0].id}.label"][1] == "-"
    assert found[f"{others[0].id}.statement"] == (others[0].statement, "-")
