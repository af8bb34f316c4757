"""Answers of a guard model, asked for once: remembered here, then in a cache shared with other workers."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from ctrainer.agents.compliance.guard import Answer, GuardModel, Question
from ctrainer.agents.compliance.verdicts import VerdictCache
from ctrainer.schemas.compliance import Guarded
from ctrainer.schemas.constitution import Hazard
from ctrainer.schemas.identity import canonical_bytes, content_digest

REMEMBERED: Final = 65_536
"""Answers kept in this process; about 20 MB."""

_HAZARDS = frozenset(map(str, Hazard))
Hazards = Mapping[str, float]


class RememberingGuard:
    """A guard model that is asked about each text once.

    The key of an answer is a digest of the model's version and the text, so none is ever stale. Only verdicts are kept,
    never an outage nor an answer that is none.
    """

    def __init__(self, model: GuardModel, *, cache: VerdictCache | None = None) -> None:
        self.version = model.version
        self._model = model
        self._cache = cache
        self._known: OrderedDict[str, Hazards] = OrderedDict()

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return an answer for each question, in order."""
        keys = {question: self._key(question) for question in questions}
        found: dict[str, Answer] = {**self._remembered(keys.values())}
        found |= await self._shared([key for key in keys.values() if key not in found])
        missing = {key: question for question, key in keys.items() if key not in found}
        found |= await self._asked(missing) if missing else {}
        return [found[keys[question]] for question in questions]

    def _remembered(self, keys: Iterable[str]) -> dict[str, Hazards]:
        found: dict[str, Hazards] = {}
        for key in keys:
            answer = self._known.get(key)
            if answer is not None:
                self._known.move_to_end(key)
                found[key] = answer
        return found

    async def _shared(self, keys: Sequence[str]) -> dict[str, Hazards]:
        if self._cache is None or not keys:
            return {}
        read = dict(zip(keys, map(_read, await self._cache.get_many(keys)), strict=True))
        found = {key: answer for key, answer in read.items() if answer is not None}
        self._remember(found)
        return found

    async def _asked(self, questions: Mapping[str, Question]) -> dict[str, Answer]:
        answers = dict(zip(questions, await self._model.answers(list(questions.values())), strict=True))
        verdicts = {key: answer for key, answer in answers.items() if not isinstance(answer, Guarded)}
        self._remember(verdicts)
        if self._cache is not None and verdicts:
            await self._cache.put_many({key: orjson.dumps(dict(answer)) for key, answer in verdicts.items()})
        return answers

    def _remember(self, answers: Mapping[str, Hazards]) -> None:
        self._known.update(answers)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _key(self, question: Question) -> str:
        return content_digest(canonical_bytes(["guard", self.version, question.prompt, question.text]))


def _read(value: bytes | None) -> Hazards | None:
    """Return a cached answer; what cannot be read counts as absent."""
    try:
        answer = orjson.loads(value) if value is not None else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(answer, dict) or not _HAZARDS.issuperset(answer):
        return None
    are_probabilities = all(isinstance(share, float) and 0.0 <= share <= 1.0 for share in answer.values())
    return answer if are_probabilities else None
