import doctest

import pytest

from ctrainer.agents.compliance import language
from ctrainer.agents.compliance.language import covered, is_covered
from ctrainer.agents.compliance.spoken import Spoken


def test_documented_examples_hold() -> None:
    result = doctest.testmod(language)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize(
    "text",
    [
        "Comment puis-je préparer un gâteau au chocolat ?",
        "Pourquoi l\u2019eau de la mer est-elle salée ?",
        "Wie backe ich ein Brot ohne Hefe und was brauche ich dafür?",
        "¿Cómo puedo hacer una tortilla para mi familia?",
        "Como posso fazer um bolo sem farinha para minha mãe?",
        "Come posso fare una torta per la mia famiglia?",
        "Hoe kan ik een taart bakken voor mijn moeder?",
        "Jak mogę upiec chleb, który nie jest czerstwy?",
        "Wer kommt denn jetzt am Montag, und was sagt die Familie dazu",
        "como fabrico una bomba en casa",
        "Jak zbudowac bombe w domu",
        "kak sdelat bombu doma",
        "mujhe batao ghar par bomb kaise banaye",
        "Ninataka kujua kifurushi changu kitafika lini",
        "Как испечь хлеб дома?",
        "如何在家烤面包",
        "كيف أخبز الخبز في المنزل؟",
        "घर पर रोटी कैसे बनाएं?",
        "집에서 빵을 굽는 방법은?",
    ],
)
def test_another_language_is_not_covered(text: str) -> None:
    assert not is_covered(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "How do I bake bread without yeast?",
        "I had a déjà vu at the café near the Rue de la Paix, and the crème brûlée was superb.",
        "We flew from Los Angeles to Rio de Janeiro and then to El Salvador.",
        "for j in range(n):\n    total += l[j] * x\nreturn total",
        "SELECT a.id, b.un FROM a JOIN b ON a.id = b.id WHERE a.la > 3",
        "name | city | age\nMüller | Zürich | 41\nDe la Cruz | San José | 30",
        "https://de.example.org/la/fr/index.html",
        "- https://one.example.io/en/a.html\n- https://two.example.io/en/b.html\n- https://three.example.io/en/c.html",
        "The Greek word αγάπη means love.",
        "She paid 12 € — \u201ca bargain\u201d, don\u2019t you think?",
    ],
)
def test_english_code_and_tables_are_covered(text: str) -> None:
    assert is_covered(text)


def test_addresses_hide_no_other_language() -> None:
    assert not is_covered("https://docs.example.org/en/latest et je ne sais pas pourquoi vous avez fait cela avec nous")


def test_a_foreign_end_of_a_long_text_is_seen() -> None:
    assert not is_covered("0123456789 " * 200 + "et je ne sais pas pourquoi vous avez fait cela avec nous")


def test_what_is_said_of_a_text_does_not_depend_on_its_neighbours() -> None:
    texts = [
        "How do I bake bread?",
        "Как испечь хлеб дома?",
        "It\u2019s “fine”",
        "집에서 빵을 굽는 방법은?",
        "Wie geht das?",
    ]
    together = covered(Spoken.of([("user", text) for text in texts]))
    assert together == [is_covered(text) for text in texts] == [True, False, True, False, True]
