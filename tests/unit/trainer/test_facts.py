from hypothesis import given
from hypothesis import strategies as st

from ctrainer.trainer.facts import exact_parts, names, numbers, words

PLAIN = st.lists(st.sampled_from(["the", "parcel", "comes", "by", "train", "and", "waits"]), min_size=1, max_size=12)


def test_numbers_are_found_in_digits_dates_times_shares_and_words() -> None:
    found = numbers("On 2024-05-01 at 10:30 Twenty of 1,500 (1.5%) came twice.")
    assert found == {"2024-05-01", "10:30", "twenty", "1,500", "1.5%", "twice"}


def test_names_are_found_inside_sentences_and_not_at_their_beginning() -> None:
    found = names('He met Anna. "Then they left for Rome," she said.\n- Maybe not: Who knows? I\'m sure I know.')
    assert found == {"Anna", "Rome"}


def test_a_word_that_begins_a_sentence_is_a_name_by_what_is_said_around_it_or_by_custom() -> None:
    text = "Priya is here.\nRome is far. Bill pays the bill. The end."
    assert names(text) == set()
    assert names(text, around="I know Priya of The Hague.") == {"Priya"}
    assert names(text, capitalised={"Rome", "Bill"}) == {"Rome"}


def test_a_name_is_the_same_with_and_without_its_ending() -> None:
    assert names("the car of Bob and Bob's bike and Bob\u2019s dog") == {"Bob"}


def test_code_links_mail_addresses_and_placeholders_are_found_whole() -> None:
    text = "```\nx = 1\n``` then `ls -l`, https://a.example/b?c=1 or me@a.example or <EMAIL_1> or www.b.example."
    assert exact_parts(text) == {
        "```\nx = 1\n```",
        "`ls -l`",
        "https://a.example/b?c=1",
        "me@a.example",
        "<EMAIL_1>",
        "www.b.example.",
    }


@given(PLAIN, st.integers(min_value=0, max_value=10**9), st.integers(min_value=0, max_value=12))
def test_a_number_is_found_wherever_it_stands(plain: list[str], number: int, place: int) -> None:
    text = " ".join([*plain[:place], str(number), *plain[place:]])
    assert numbers(text) == {str(number)}


@given(PLAIN, st.sampled_from(["Anna", "O'Brien", "Jean-Luc", "Åsa", "NATO"]), st.integers(min_value=1, max_value=12))
def test_a_name_is_found_wherever_it_stands_inside_a_sentence(plain: list[str], name: str, place: int) -> None:
    text = " ".join([*plain[:place], name, *plain[place:]])
    assert names(text) == {name}


@given(st.text(max_size=60))
def test_any_text_has_words_in_small_letters(text: str) -> None:
    assert all(word == word.lower() and word for word in words(text))
    assert names(text) | numbers(text) | exact_parts(text) is not None
