"""The texts that the harm score is trained on and measured with."""

import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from ctrainer.agents.compliance.conversation import StrictRole
from scripts.harm_code import library_code

PHRASES = Path(__file__).parent / "harm_phrases"
POOLED = ("xstest", "openai_moderation", "harmbench", "inthewild_jailbreaks", "self_instruct", "presidio_synth")
"""The sources whose texts the pooled figures are about."""
OWN = "own_phrases"
ANSWERS = "self_instruct_responses"
"""The source whose texts are an assistant's."""
NEAR_DUPLICATE = 0.5
"""Cosine of word and word-pair vectors above which two texts may not be in different folds."""
_FRAMES_PER_PHRASE = 4
_OWN_WEIGHT = 0.3
_SENTENCES_PER_PATTERN = 150
_FILLED_WEIGHT = 0.12
"""Of sentences that differ in the fillings of a pattern only."""
_PASSAGE_WEIGHT = 0.6
SHORT_WEIGHT = 0.5
"""Of whole turns of a few words."""
LIGHT_WEIGHT = 0.06
"""Of code, and of short turns that differ in the filling of a pattern only."""
_SHORTEST_TURN = 12
_AILUMINATE = {
    "vcr": "S1",
    "ncr": "S2",
    "src": "S3",
    "dfm": "S5",
    "spc": "S6",
    "prv": "S7",
    "ipv": "S8",
    "iwp": "S9",
    "hte": "S10",
    "ssh": "S11",
    "sxc": "S12",
}
_HARMBENCH = {
    "cybercrime_intrusion": "S2",
    "chemical_biological": "S9",
    "illegal": "S2",
    "misinformation_disinformation": "S5",
    "harassment_bullying": "S10",
    "harmful": None,
}
_MODERATION = {"SH": "S11", "S": "S12", "V": "S1", "H": "S10", "HR": "S10"}
"""In this order: the first flag that is set names the hazard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A text with its truth. `group` names what must stay in one fold; `weight` is its weight in training."""

    source: str
    text: str
    harmful: bool
    hazard: str | None = None
    group: str | None = None
    weight: float = 1.0

    @property
    def role(self) -> StrictRole:
        """Whose turn it is."""
        return "assistant" if self.source == ANSWERS else "user"


def load(data: Path) -> list[Example]:
    """Return every labelled text below `data`, in a fixed order."""
    return [example for reader in _READERS for example in reader(data) if example.text.strip()]


def own_phrases() -> list[Example]:
    """Return the sentences made of our own phrases: always training data, never evaluated."""
    return [*_contrasts(), *_requests(), *_prose(), *_passages(), *_short(), *_code()]


def _contrasts() -> Iterator[Example]:
    phrases = _phrases("contrasts")
    chance = random.Random(7)

    def framed(phrase: str) -> list[str]:
        return [frame.format(phrase) for frame in chance.sample(phrases["frames"], _FRAMES_PER_PHRASE)]

    acts = [(hazard, text) for hazard, lines in phrases["harmful"].items() for act in lines for text in framed(act)]
    crimes = [f"{verb} {victim}" for verb in phrases["violent_verbs"] for victim in phrases["victims"]]
    acts += [("S1", chance.choice(phrases["frames"]).format(crime)) for crime in crimes]
    said = [*phrases["harmful_texts"].items(), *phrases["harmful_more"].items()]
    acts += [(hazard, text) for hazard, lines in said for text in lines]
    tasks = [text for task in phrases["harmless"] for text in framed(task)]
    tasks += [
        text
        for verb, objects in phrases["safe_objects"].items()
        for thing in objects
        for text in framed(f"{verb} {thing}")
    ]
    tasks += [*phrases["traps"], *phrases["harmless_texts"], *phrases["harmless_more"]]
    yield from (_own(text, hazard) for hazard, text in acts)
    yield from (_own(text, None) for text in tasks)


def _requests() -> Iterator[Example]:
    phrases = _phrases("requests")
    frames = [*phrases["frames"], *_phrases("contrasts")["frames"]]
    chance = random.Random(11)
    for hazard, pair in phrases["pairs"].items():
        for code, acts in ((hazard, pair["harmful"]), (None, pair["harmless"])):
            for act in acts:
                yield from (_own(frame.format(act), code) for frame in chance.sample(frames, _FRAMES_PER_PHRASE))


def _prose() -> Iterator[Example]:
    phrases = _phrases("prose")
    chance = random.Random(13)
    for hazard, lines in phrases["harmful"].items():
        yield from (_own(text, hazard) for text in lines)
    yield from (_own(text, None) for text in [*phrases["harmless"], *phrases["answers"]])
    for hazard, patterns in phrases["said"].items():
        for pattern in patterns:
            filled = (_filled(pattern, phrases["slots"], chance) for _ in range(_SENTENCES_PER_PATTERN))
            code = None if hazard == "harmless" else hazard
            yield from (_own(text, code, _FILLED_WEIGHT) for text in dict.fromkeys(filled))


def _passages() -> Iterator[Example]:
    phrases = _phrases("passages")
    for hazard, passages in phrases["harmful"].items():
        yield from (_own(text, hazard, _PASSAGE_WEIGHT) for text in passages)
    yield from (_own(text, None, _PASSAGE_WEIGHT) for text in [*phrases["harmless"], *phrases["tasks"]])
    yield from (_own(text, None) for text in phrases["turns"])


def _short() -> Iterator[Example]:
    phrases = _phrases("short")
    for hazard, turns in phrases["harmful"].items():
        yield from (_own(text, hazard, SHORT_WEIGHT) for text in turns)
    yield from (_own(text, None, SHORT_WEIGHT) for text in phrases["harmless"])
    for hazard, patterns in phrases["patterns"].items():
        code = None if hazard == "harmless" else hazard
        yield from (
            _own(text, code, LIGHT_WEIGHT) for pattern in patterns for text in _fillings(pattern, phrases["slots"])
        )


def _fillings(pattern: str, slots: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a pattern with every filling of its slots."""
    names = re.findall(r"\{(\w+)\}", pattern)
    for chosen in itertools.product(*(slots[name] for name in names)):
        yield pattern.format(**dict(zip(names, chosen, strict=True)))


def _code() -> Iterator[Example]:
    yield from (_own(text, None, LIGHT_WEIGHT) for text in [*_phrases("code")["snippets"], *library_code()])


def _filled(pattern: str, slots: Mapping[str, Sequence[str]], chance: random.Random) -> str:
    text = re.sub(r"\{(\w+)\}", lambda slot: chance.choice(slots[slot[1]]), pattern)
    return text[0].upper() + text[1:]


def _own(text: str, hazard: str | None, weight: float = _OWN_WEIGHT) -> Example:
    return Example(source=OWN, text=text, harmful=hazard is not None, hazard=hazard, weight=weight)


def _phrases(name: str) -> Any:
    return yaml.safe_load((PHRASES / f"{name}.yaml").read_text(encoding="utf-8"))


def unlabelled(data: Path) -> list[str]:
    """Return the turns of real conversations that nobody labelled one by one."""
    turns = (
        turn.strip()
        for row in _rows(data, "hh_rlhf_harmless")
        for turn in re.split(r"\n\n(?:Human|Assistant): ", row["chosen"])
    )
    return list(dict.fromkeys(turn for turn in turns if len(turn) > _SHORTEST_TURN))


def fold_numbers(examples: Sequence[Example], *, folds: int, seed: int) -> NDArray[np.int64]:
    """Return a fold for each example: groups and chains of near-duplicates are never torn apart."""
    component = _components(examples)
    chance = np.random.default_rng(seed)
    return chance.integers(folds, size=int(component.max()) + 1)[component]


def _components(examples: Sequence[Example]) -> NDArray[np.int32]:
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform([e.text for e in examples])
    alike = csr_matrix(vectors @ vectors.T > NEAR_DUPLICATE)
    names = {name: number for number, name in enumerate(sorted({e.group for e in examples if e.group}))}
    member = [(row, names[e.group]) for row, e in enumerate(examples) if e.group]
    places = ([row for row, _ in member], [column for _, column in member])
    groups = csr_matrix((np.ones(len(member), dtype=np.int8), places), shape=(len(examples), max(1, len(names))))
    component: NDArray[np.int32] = connected_components(alike + csr_matrix(groups @ groups.T > 0), directed=False)[1]
    return component


def _rows(data: Path, name: str) -> Iterator[dict[str, Any]]:
    with (data / name / "dev.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _xstest(data: Path) -> Iterator[Example]:
    for row in _rows(data, "xstest"):
        yield Example(source="xstest", text=row["text"], harmful=bool(row["label"]))


def _moderation(data: Path) -> Iterator[Example]:
    for row in _rows(data, "openai_moderation"):
        hazard = next((code for flag, code in _MODERATION.items() if row["categories"].get(flag)), None)
        yield Example(source="openai_moderation", text=row["text"], harmful=bool(row["label"]), hazard=hazard)


def _harmbench(data: Path) -> Iterator[Example]:
    for row in _rows(data, "harmbench"):
        if row["functional"] != "copyright":
            yield Example(source="harmbench", text=row["text"], harmful=True, hazard=_HARMBENCH[row["category"]])


def _advbench(data: Path) -> Iterator[Example]:
    for row in _rows(data, "advbench"):
        yield Example(source="advbench", text=row["text"], harmful=True)


def _ailuminate(data: Path) -> Iterator[Example]:
    """Yield the prompts. Requests for advice (S6) teach the hazard only: most of them are harmless by themselves."""
    for row in _rows(data, "ailuminate_en_us"):
        hazard = _AILUMINATE[row["hazard"].partition("_")[0]]
        weight = 0.0 if hazard == "S6" else 0.5
        yield Example(source="ailuminate_en_us", text=row["text"], harmful=True, hazard=hazard, weight=weight)


def _jailbreaks(data: Path) -> Iterator[Example]:
    for row in _rows(data, "inthewild_jailbreaks"):
        yield Example(source="inthewild_jailbreaks", text=row["text"], harmful=True, hazard="S14")


def _self_instruct(data: Path) -> Iterator[Example]:
    for row in _rows(data, "self_instruct"):
        group = _prompt_group(row["text"])
        yield Example(source="self_instruct", text=row["text"], harmful=False, group=group)
        yield Example(source="self_instruct_responses", text=row["response"], harmful=False, group=group)
    for row in _rows(data, "self_instruct_responses"):
        group = _prompt_group(row["prompt"])
        yield Example(source="self_instruct_responses", text=row["text"], harmful=False, group=group)


def _presidio(data: Path) -> Iterator[Example]:
    for row in _rows(data, "presidio_synth"):
        group = f"template {row['template_id']}"
        yield Example(source="presidio_synth", text=row["text"], harmful=False, group=group)


def _prompt_group(prompt: str) -> str:
    """Return the same name for the same instruction, however its parts were joined."""
    words = re.findall(r"\w+", prompt.lower().replace("output:", "").replace("input:", ""))
    return "prompt " + " ".join(words[:12])


_READERS = (_xstest, _moderation, _harmbench, _advbench, _ailuminate, _jailbreaks, _self_instruct, _presidio)
