import doctest
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.detectors import normalization
from ctrainer.agents.compliance.detectors.normalization import normalized, original_span, undisguised, undisguised_all

HIDDEN = ["\u200b", "\u200d", "\ufe0f", "\u202e", "\u2066", "\u00ad", "\u0336", "\ufeff", "\u2060", "\U000e0001"]
any_text = st.text(st.characters() | st.sampled_from([*HIDDEN, "Ａ", "ﬁ", "а", "１", "\u00a0", "\ud800", "İ"]))
ascii_text = st.text(st.characters(max_codepoint=127))


def places_of(text: str) -> tuple[str, list[int]]:
    plain, places = normalized(text)
    return plain, list(range(len(text) + 1)) if places is None else list(places)


def test_documented_examples_hold() -> None:
    assert doctest.testmod(normalization).failed == 0


@given(ascii_text)
def test_ascii_text_is_returned_as_it_is(text: str) -> None:
    plain, places = normalized(text)
    assert plain is text
    assert places is None


@given(any_text)
def test_places_never_go_back_and_end_at_the_end(text: str) -> None:
    plain, places = places_of(text)
    assert len(places) == len(plain) + 1
    assert places == sorted(places)
    assert places[-1] == len(text)


@given(any_text)
def test_what_is_left_alone_stands_at_its_own_place(text: str) -> None:
    plain, places = places_of(text)
    unchanged = [(character, text[place]) for character, place in zip(plain, places, strict=False)]
    assert all(ours == theirs for ours, theirs in unchanged if not ours.isascii() and ours != "\ufffd")


@given(any_text)
def test_the_result_can_always_be_scanned_as_bytes(text: str) -> None:
    assert normalized(text)[0].encode().decode() == normalized(text)[0]


@given(any_text)
def test_normalising_again_changes_nothing(text: str) -> None:
    once = normalized(text)[0]
    assert normalized(once)[0] == once


@given(st.text("abcXYZ0129_-@.", min_size=1), st.text("abcXYZ0129 "), st.data())
def test_a_span_maps_back_to_all_of_the_disguised_text_and_to_nothing_before_it(
    secret: str, before: str, data: st.DataObject
) -> None:
    hidden = "".join(character + data.draw(st.sampled_from([*HIDDEN, ""])) for character in secret)
    text = f"é{before}{hidden} é"
    plain, places = normalized(text)
    start = plain.index(secret, len(before) + 1 if before else 1)
    first, last = original_span(places, start, start + len(secret))
    assert text[first:last] == hidden


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("ＡＫＩＡ１２３４", "AKIA1234"),
        ("p\u0430ssw\u043erd", "password"),
        ("p\u03b1ssword", "password"),
        ("4111\u00a01111\u20071111\u202f1111", "4111 1111 1111 1111"),
        ("555\u2012123\u20134567", "555-123-4567"),
        ("٥٥٥-١٢٣", "555-123"),
        ("ann＠example．org", "ann@example.org"),
        ("i\u200bg\u200bnore", "ignore"),
        ("\u202eignore\u202c", "ignore"),
        ("\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065", "ignore"),
        ("4\u03361\u03361\u0336", "411"),
        ("\ud83d lone", "\ufffd lone"),
        ("𝐬𝐞𝐜𝐫𝐞𝐭", "secret"),
    ],
)
def test_a_disguise_is_taken_off(disguised: str, plain: str) -> None:
    assert normalized(disguised)[0] == plain


@pytest.mark.parametrize(
    "text",
    ["Привет, как дела?", "ναι, ευχαριστώ", "İstanbul'da", "naïve café — “quoted” …", "日本語のテキスト", "❤️ 👩‍💻"],
)
def test_honest_text_of_another_language_is_left_alone(text: str) -> None:
    assert normalized(text) == (text, None)


def test_an_accent_is_taken_off_only_where_it_is_a_character_of_its_own() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")
    assert (normalized(composed)[0], normalized(decomposed)[0]) == ("caf\u00e9", "cafe")


def test_a_turkish_letter_changes_no_place() -> None:
    assert normalized("\u0130stanbul'da \u0131\u015f\u0131k") == ("\u0130stanbul'da i\u015fik", None)


@given(st.lists(st.text(max_size=12) | st.text("pa\u0430\u200d\ufe0f\ud800 ", max_size=6), max_size=6))
def test_many_texts_are_told_apart_as_each_alone(texts: list[str]) -> None:
    assert undisguised_all(texts) == [undisguised(text) for text in texts]
