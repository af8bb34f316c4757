from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ctrainer.trainer.meaning import Bounds, Fault, changed_too_much
from ctrainer.trainer.revision_prompts import ASK_REVISION

ORIGINAL = "You are an idiot, so listen: the parcel for Anna has 3 parts and it comes to Rome on Monday."
CIVIL = "Please listen: the parcel for Anna has 3 parts and it comes to Rome on Monday."


def faults(
    revised: str,
    *,
    original: str = ORIGINAL,
    protected: str | None = None,
    question: str = "",
    similarity: float = 0.9,
) -> set[str]:
    found = changed_too_much(
        original,
        revised,
        protected=original if protected is None else protected,
        question=question,
        instructions=f"Rewrite the answer so that it is civil; keep the matter itself.\n{ASK_REVISION}",
        similarity=similarity,
        bounds=Bounds(),
    )
    return {fault.value for fault in found}


def test_a_civil_rewording_with_every_fact_is_accepted() -> None:
    assert faults(CIVIL) == set()


@pytest.mark.parametrize(
    ("revised", "fault"),
    [
        (CIVIL.replace("3 ", "4 "), Fault.NUMBERS),
        (CIVIL.replace("3 ", "")[:-1] + ", all of it.", Fault.NUMBERS),
        (CIVIL[:-1] + " at 5.", Fault.NUMBERS),
        (CIVIL.replace("Anna", "you"), Fault.NAMES),
        (CIVIL.replace("Rome", "Roma"), Fault.NAMES),
        (CIVIL[:-1] + " with Bob.", Fault.NAMES),
        (CIVIL[:-1] + ", see https://a.example/b.", Fault.EXACT_PARTS),
        ("Anna: 3 parts, Rome, Monday.", Fault.LENGTH),
        (CIVIL + " It will be there and we are glad about it" * 4, Fault.LENGTH),
        ("", Fault.LENGTH),
        ("Anna: 3 things go with a truck from here down south until Rome sees them late next Monday", Fault.WORDING),
        (
            "I'm sorry, I can't help with that: the parcel for Anna has 3 parts and comes to Rome on Monday.",
            Fault.REFUSAL,
        ),
        (CIVIL[:-1] + ", so that it is civil; keep the matter itself.", Fault.ECHO),
        (CIVIL[:-1] + ". Write only the new answer.", Fault.ECHO),
        (ORIGINAL.upper().lower(), Fault.UNCHANGED),
    ],
)
def test_what_breaks_a_bound_is_told(revised: str, fault: Fault) -> None:
    assert fault.value in faults(revised)


ADVICE = (
    "You fool, do not take both pills together. Take 5 mg in the morning and 10 mg at night. It is safe for thirteen "
    'days at -5 degrees, costs $5, and the first box is the right one: <tool_call>{"to": "ada"}</tool_call>.'
)


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("do not take", "do take", Fault.CONTRARY),
        ("do not take", "always take", Fault.CONTRARY),
        ("5 mg in the morning and 10 mg", "10 mg in the morning and 5 mg", Fault.CONTRARY),
        ("5 mg", "5 g", Fault.NUMBERS),
        ("5 mg", "five mg", Fault.NUMBERS),
        ("thirteen", "fourteen", Fault.NUMBERS),
        ("-5 degrees", "5 degrees", Fault.NUMBERS),
        ("$5", "5", Fault.NUMBERS),
        ("is safe", "is unsafe", Fault.CONTRARY),
        ("is safe", "is hardly safe", Fault.CONTRARY),
        ("the first box", "the last box", Fault.CONTRARY),
        ("ada", "adb", Fault.EXACT_PARTS),
        ("the right one", "the right one [/INST]", Fault.EXACT_PARTS),
        ("the right one", "the right one</s>", Fault.EXACT_PARTS),
        ("the right one", "the right one <|im_end|>", Fault.EXACT_PARTS),
        ("pills", "p\u0456lls", Fault.LETTERS),
        ("pills", "pil\u200bls", Fault.LETTERS),
        ("pills", "pil\x00ls", Fault.LETTERS),
    ],
)
def test_a_text_with_nearly_the_same_words_that_says_something_else_is_told(
    before: str, after: str, fault: Fault
) -> None:
    """Its embedding says that it is alike."""
    civil = ADVICE.replace("You fool, do", "Please do")
    assert before in civil
    assert faults(civil, original=ADVICE) == set()
    assert fault.value in faults(civil.replace(before, after), original=ADVICE)


def test_the_contrary_of_what_breaches_is_no_fault() -> None:
    protected = "The parcel is here."
    original = f"You should never trust your friends. {protected}"
    revised = f"You should trust your friends. {protected}"
    assert faults(revised, original=original, protected=protected) == set()


def test_the_same_in_other_spelling_is_no_contrary() -> None:
    original = "You fool, you cannot return it, since it isn't whole. It's not the first time this week, you see."
    revised = "Sadly, you can't return it, since it is not whole. It isn't the first time this week, you see."
    assert faults(revised, original=original) == set()


def test_another_meaning_is_told_by_its_embedding_alone() -> None:
    assert faults(CIVIL, similarity=0.59) == {"meaning"}


def test_what_stands_only_in_the_breach_may_go_and_nothing_else() -> None:
    original = "The parcel is here. You, Bob, are 1 idiot. It weighs 3 pounds, says Anna."
    protected = "The parcel is here. It weighs 3 pounds, says Anna."
    assert faults(protected, original=original, protected=protected) == set()
    assert faults(protected.replace("3 ", "some "), original=original, protected=protected) == {"numbers"}
    assert faults(protected.replace("Anna", "Bob"), original=original, protected=protected) == {"names"}


BEGINS_WITH = "{} has the parcel, you idiot, and it comes to the door before noon with all of its parts."


@pytest.mark.parametrize("name", ["Bob", "Rome", "Monday", "Priya"])
def test_a_name_that_only_begins_a_sentence_must_stay_and_none_may_be_new_there(name: str) -> None:
    original = BEGINS_WITH.format(name)
    civil, question = original.replace(", you idiot,", ","), "Who is it, Priya or somebody else?"
    assert faults(civil, original=original, question=question) == set()
    assert faults(civil.replace(name, "She"), original=original, question=question) == {"names"}
    nameless = BEGINS_WITH.format("She")
    assert faults(civil, original=nameless, question=question) == {"names"}


@pytest.mark.parametrize("opening", ["However, it", "Yes, it", "Unfortunately it", "Listen: it", "Please, it", "It"])
def test_another_beginning_of_a_sentence_is_no_new_name(opening: str) -> None:
    original = "So the parcel is here, you idiot. The Rome office has it, and it comes to the door before noon."
    revised = (
        f"{opening} is true that the parcel is here. The Rome office has it, and it comes to the door before noon."
    )
    assert faults(revised, original=original) == set()


def test_a_sentence_that_sends_to_a_professional_is_no_fault() -> None:
    original = "You don't need a doctor for this rash, it goes away by itself within some days in most people."
    revised = "This rash goes away by itself within some days in most people, but ask a doctor if it does not go away."
    assert faults(revised, original=original) == set()


def test_a_refusal_that_was_one_before_is_no_new_refusal() -> None:
    original = "I'm sorry, but I can't help with that, you idiot, not today and not on any other day."
    assert (
        faults("I'm sorry, but I can't help with that, not today and not on any other day.", original=original) == set()
    )


WORDS = st.sampled_from(["the", "parcel", "comes", "by", "train", "and", "waits", "for", "you"])
FACTS = st.lists(
    st.sampled_from(["Anna", "Rome", "17", "2.5", "<EMAIL_1>", "`run`", "Bob"]), min_size=1, max_size=4, unique=True
)


@given(st.lists(WORDS, min_size=6, max_size=12), FACTS, st.data())
def test_no_revision_that_loses_or_invents_a_fact_is_accepted(
    plain: list[str], facts: list[str], data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(facts))
    full = " ".join([plain[0], *facts, *plain[1:]])
    less = " ".join([plain[0], *(fact for fact in facts if fact != lost), *plain[1:]])
    kinds = {"numbers", "names", "exact-parts"}
    assert faults(less, original=full) & kinds
    assert faults(full, original=less) & kinds


@given(st.lists(WORDS, min_size=6, max_size=12), FACTS)
def test_the_order_of_facts_is_no_fault_of_facts(plain: list[str], facts: list[str]) -> None:
    assume(len(facts) > 1)
    original = " ".join([plain[0], *facts, *plain[1:]])
    for order in list(permutations(facts))[:4]:
        assert not faults(" ".join([plain[0], *order, *plain[1:]]), original=original) & {
            "numbers",
            "names",
            "exact-parts",
        }
