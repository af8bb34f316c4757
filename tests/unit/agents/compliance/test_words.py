import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.detectors.normalization import is_disguised
from ctrainer.agents.compliance.spoken import MOST_CHARACTERS, portions
from ctrainer.agents.compliance.weight_table import WeightTable, without_clashes
from ctrainer.agents.compliance.words import LETTERS, NO_PAIR, bytes_of, pair_keys, words_of


def plain_words(text: str) -> list[str]:
    """Return the words of an ASCII text, by a pattern."""
    return re.findall("[a-z0-9]+", text.lower())


@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=80), max_size=6))
def test_equal_words_have_equal_keys_and_different_words_different_ones(texts: list[str]) -> None:
    words = words_of(texts)
    expected = [plain_words(text) for text in texts]
    assert words.counts.tolist() == [len(one) for one in expected]
    flat = [word[:24] + f"{min(len(word), 63) if len(word) > 8 else 0}" for one in expected for word in one]
    keys = words.keys.tolist()
    assert len(set(zip(flat, keys, strict=True))) == len(set(flat)) == len(set(keys))


def test_words_end_at_punctuation_of_other_alphabets_and_keep_their_letters() -> None:
    keys = words_of(["It\u2019s \u201c2nd\u2011hand\u201d,\u00a0na\u00efve"]).keys
    assert keys.tolist() == words_of(["it s 2nd hand na\u00efve"]).keys.tolist()
    assert len(set(keys.tolist())) == 5


def test_signs_of_three_blocks_separate_words_and_no_other_character_does() -> None:
    texts = [f"a{chr(code)}b" for code in (*range(0x80, 0x370), *range(0x1F80, 0x3180), 0x4E00, 0xE280, 0x1F600)]
    texts = [text for text in texts if not is_disguised(text)]
    expected = [1 + bool(re.search("[\u0080-\u00bf\u2000-\u206f\u3000-\u303f]", text)) for text in texts]
    assert words_of(texts).counts.tolist() == expected
    split = [bytes_of(text).translate(LETTERS).split(b"\0") for text in texts]
    assert [len([word for word in words if word]) for words in split] == expected


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 62])
def test_a_word_is_told_from_the_one_that_is_a_letter_longer(length: int) -> None:
    shorter, longer, other = words_of([f"{'a' * length} {'a' * (length + 1)} {'a' * (length - 1)}b"]).keys.tolist()
    assert shorter != longer
    assert (shorter == other) == (length > 24)


@given(st.lists(st.text("ab ", max_size=12), max_size=5), st.integers(1, 4))
def test_pairs_are_those_of_each_text_alone(texts: list[str], gap: int) -> None:
    words = words_of(texts)
    keys = words.keys
    texts_of = np.repeat(np.arange(len(texts)), words.counts)
    expected = [
        int(pair_keys(keys[place : place + 1], keys[place + gap : place + gap + 1], gap)[0])
        if texts_of[place] == texts_of[place + gap]
        else NO_PAIR
        for place in range(len(keys) - gap)
    ]
    assert words.pairs(gap).tolist() == expected


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.integers(-4095, 4095), max_size=40), st.integers(0, 2**64 - 1))
def test_a_table_gives_each_key_its_weight_and_all_others_nothing(weights: dict[int, int], other: int) -> None:
    keys = np.array(list(weights), np.uint64)
    kept = without_clashes(keys, bits=18)
    known = {key: weight for (key, weight), is_kept in zip(weights.items(), kept, strict=True) if is_kept}
    table = WeightTable.of(np.array(list(known), np.uint64), list(known.values()), bits=18, salts=1)
    assert table.weights(np.array(list(known), np.uint64)).tolist() == list(known.values())
    if all(other >> 16 != key >> 16 for key in known):
        assert table.weights(np.array([other], np.uint64)).tolist() == [0]


def test_two_keys_of_one_place_are_no_table_but_another_salt_tells_them_apart() -> None:
    keys = np.array([1 << 20, 1 << 21], np.uint64)
    with pytest.raises(ValueError, match="share one of 16 places"):
        WeightTable.of(keys, [1, 2], bits=4, salts=1)
    assert without_clashes(keys, bits=4).tolist() == [True, False]
    spread = np.array([3 << 60, (3 << 60) + (1 << 59)], np.uint64)
    assert WeightTable.of(spread, [1, -2], bits=4).weights(spread).tolist() == [1, -2]


def test_portions_hold_all_turns_in_order_and_little_text_each() -> None:
    turns = [("user", "a " * size) for size in (0, 10, MOST_CHARACTERS, 5, MOST_CHARACTERS // 4, 0, 7)]
    parts = list(portions(["user"] * len(turns), [text for _, text in turns]))
    assert [text for part in parts for text in part.texts] == [text for _, text in turns]
    assert all(sum(map(len, part.texts)) <= MOST_CHARACTERS or len(part.texts) <= 2 for part in parts)
    assert not list(portions([], []))
