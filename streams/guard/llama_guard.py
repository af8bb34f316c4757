r"""A guard model behind an OpenAI-compatible endpoint that answers as Llama Guard 3 does: `safe`, or `unsafe\nS1,S9`.

`POST /v1/chat/completions`, one call for each question: a prompt stands as the user's turn, an answer as the
assistant's turn after it. Source: the model card of Llama Guard 3 and the chat completions API as vLLM serves it.
"""

import asyncio
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctrainer.agents.compliance.guard import Answer, Question
from ctrainer.agents.compliance.policy import PolicyUnavailableError
from ctrainer.schemas.compliance import Guarded
from ctrainer.schemas.constitution import Hazard
from ctrainer.streams.policy.connection import EngineConnection, QuestionRefusedError

PATH = "/v1/chat/completions"
READING = 2
"""Changes whenever the same answer could be read otherwise."""
MOST_TOKENS = 64
"""The longest verdict names fourteen hazards."""
HARMLESS = Question(None, "Hello")
"""Whatever gives no verdict on this is no guard model, or none any more."""
ALTERNATIVES = 5
"""So many likeliest first tokens are asked for, so that the probability of `unsafe` is among them."""

_VERDICT = re.compile(r"\s*(?:(?P<safe>safe)|unsafe\n(?P<codes>S\d{1,2}(?:,[ ]?S\d{1,2})*))\s*")
_HAZARDS = frozenset(map(str, Hazard))


class LlamaGuard:
    """Asks the model about each text. `version` is its name, the version of its weights, and how it is read."""

    def __init__(self, connection: EngineConnection, *, model: str, version: str) -> None:
        self.version = f"{model}@{version}-r{READING}"
        self._connection = connection
        self._model = model

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return an answer for each question, in order: `unavailable` where none came, `unclear` where it is none.

        Where nothing clear is said of a greeting, either, all that is unclear is unavailable: another model is served,
        say, and people would get all there is to read.
        """
        answers = list(await asyncio.gather(*map(self._answer, questions)))
        if Guarded.UNCLEAR not in answers or not isinstance(await self._answer(HARMLESS), Guarded):
            return answers
        return [Guarded.UNAVAILABLE if answer is Guarded.UNCLEAR else answer for answer in answers]

    async def _answer(self, question: Question) -> Answer:
        try:
            completion = await self._connection.ask(PATH, _request(self._model, question))
        except QuestionRefusedError:
            return Guarded.UNCLEAR
        except PolicyUnavailableError:
            return Guarded.UNAVAILABLE
        return read_completion(completion)


def read_completion(completion: Any) -> Answer:
    r"""Return what a chat completion says. What is none is an outage; one without a verdict is unclear.

    >>> read_completion({"choices": [{"finish_reason": "stop", "message": {"content": "unsafe\nS1,S9"}}]})
    {'S1': 1.0, 'S9': 1.0}
    >>> read_completion({"choices": [{"finish_reason": "stop", "message": {"content": "I cannot help with that."}}]})
    <Guarded.UNCLEAR: 'unclear'>
    >>> read_completion({})
    <Guarded.UNAVAILABLE: 'unavailable'>
    """
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Guarded.UNAVAILABLE
    content = message.get("content")
    said = _VERDICT.fullmatch(content) if isinstance(content, str) else None
    # An answer that was cut off may have lost half of a code.
    if said is None or choice.get("finish_reason") != "stop":
        return Guarded.UNCLEAR
    return _verdict(said, choice)


def _verdict(said: re.Match[str], choice: Mapping[str, Any]) -> Answer:
    if said["safe"]:
        return Guarded.UNCLEAR if _probability(choice.get("logprobs"), of="safe", against="unsafe") is None else {}
    codes = [code.strip() for code in said["codes"].split(",")]
    probability = _probability(choice.get("logprobs"), of="unsafe", against="safe")
    if probability is None or not _HAZARDS.issuperset(codes):
        return Guarded.UNCLEAR
    return dict.fromkeys(codes, probability)


def _probability(logprobs: Any, *, of: str, against: str) -> float | None:
    """Return the share of a word among two at the first token that is one; 1 without log-probabilities.

    None where they are not what they should be, or say that the other word was the likelier one: at temperature 0 it
    would have been said.
    """
    if logprobs is None:
        return 1.0
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list):
        return None
    spoken = (token for token in tokens if not isinstance(token, dict) or str(token.get("token")).strip())
    try:
        first = dict(_alternatives(next(spoken)))
    except (AttributeError, StopIteration, KeyError, TypeError, ValueError):
        return None
    share, other = (
        sum(part for token, part in first.items() if word.startswith(token.strip())) for word in (of, against)
    )
    return share / (share + other) if share and share >= other else None


def _alternatives(token: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the tokens that could stand at a place, the one that does among them, with their probabilities.

    Raises:
        ValueError: a log-probability is none.
    """
    for one in (*(token.get("top_logprobs") or ()), token):
        text, share = one["token"], one["logprob"]
        # Some write as a text what JSON has no number for.
        if not isinstance(text, str) or isinstance(share, bool) or not isinstance(share, int | float) or share > 0:
            raise ValueError("log-probability: got something else, expected a token and a number of at most 0")
        if text.strip():
            yield text, math.exp(share)


def _request(model: str, question: Question) -> dict[str, Any]:
    turns = [{"role": "user", "content": question.text}]
    if question.prompt is not None:
        turns = [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.text}]
    return {
        "model": model,
        "messages": turns,
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
        "logprobs": True,
        "top_logprobs": ALTERNATIVES,
    }
