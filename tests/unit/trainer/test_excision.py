import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.trainer.excision import Place, without_sentences

SENTENCES = st.lists(
    st.sampled_from(["It is late.", "Is it 10.30 yet?", "Go home!", 'He said "no."', "See a.example/b now."]),
    min_size=1,
    max_size=8,
)


@given(SENTENCES, st.data())
def test_exactly_the_sentence_that_is_hit_is_left_out(sentences: list[str], data: st.DataObject) -> None:
    hit = data.draw(st.integers(min_value=0, max_value=len(sentences) - 1))
    start = sum(len(sentence) + 1 for sentence in sentences[:hit])
    left = without_sentences(" ".join(sentences), [Place(start + 1, start + 3)])
    assert left == " ".join([*sentences[:hit], *sentences[hit + 1 :]])


@given(st.text(max_size=80))
def test_nothing_is_left_out_where_nothing_is_hit(text: str) -> None:
    assert without_sentences(text, []) == text.strip()


@pytest.mark.parametrize("text", ["You idiot\nIt comes today.", "It comes today. You idiot"])
def test_a_line_is_a_sentence_too(text: str) -> None:
    start = text.index("You")
    assert without_sentences(text, [Place(start, start + 9)]) == "It comes today."


def test_a_hit_over_two_sentences_takes_both() -> None:
    assert without_sentences("One here. Two here. Three here.", [Place(5, 12)]) == "Three here."
