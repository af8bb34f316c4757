import pytest

from ctrainer.trainer.collapse import LEAST, WINDOW, CollapseBounds, Lately

BOUNDS = CollapseBounds()
REFUSED = "I'm sorry, but I can't help with that."


def varied(number: int) -> str:
    return f"answer number {number} speaks of thing {number}"


def test_a_model_that_refuses_what_was_answered_has_collapsed() -> None:
    lately = Lately().after(drafts=[(varied(number), REFUSED) for number in range(LEAST)])
    assert lately.refuses_too_much(BOUNDS)
    assert lately.refusals() == (0.0, 1.0)


def test_refusals_that_were_refusals_before_are_no_collapse() -> None:
    assert not Lately().after(drafts=[(REFUSED, REFUSED)] * LEAST).refuses_too_much(BOUNDS)


def test_a_few_pairs_say_nothing() -> None:
    few = [(varied(number), REFUSED) for number in range(LEAST - 1)]
    lately = Lately().after(drafts=few, accepted=few)
    assert not lately.refuses_too_much(BOUNDS)
    assert not lately.says_the_same(BOUNDS)


def test_revisions_that_all_say_the_same_are_a_collapse() -> None:
    lately = Lately().after(accepted=[(varied(number), "so it is in every case") for number in range(LEAST)])
    assert lately.says_the_same(BOUNDS)
    before, after = lately.diversity()
    assert after < before


def test_revisions_as_varied_as_their_originals_are_no_collapse() -> None:
    pairs = [(varied(number), varied(number).replace("thing", "matter")) for number in range(LEAST)]
    assert not Lately().after(accepted=pairs).says_the_same(BOUNDS)


def test_only_the_latest_count() -> None:
    lately = Lately().after(drafts=[(varied(number), REFUSED) for number in range(LEAST)])
    recovered = lately.after(drafts=[(varied(number), varied(number)) for number in range(WINDOW)])
    assert not recovered.refuses_too_much(BOUNDS)


@pytest.mark.parametrize("measure", ["refusals", "diversity"])
def test_nothing_seen_is_no_collapse(measure: str) -> None:
    meters = getattr(Lately(), measure)()
    assert meters.before == meters.after
