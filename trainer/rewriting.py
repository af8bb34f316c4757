"""A language model that criticises and rewrites answers, many at once."""

from collections.abc import Sequence
from typing import Any

from ctrainer.trainer.generation import Said, greedy_answers
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.revision import Draft, Rewriting
from ctrainer.trainer.revision_prompts import bare_answer, critique_chat, revision_chat

CRITIQUE_TOKENS = 24
SPARE_TOKENS = 24
"""So many more tokens than the old answer has may a new one have."""
AT_ONCE = 16


def rewrite(language_model: LanguageModel, drafts: Sequence[Draft], *, at_once: int = AT_ONCE) -> list[Rewriting]:
    """Return a rewriting of each draft, principle after principle: criticism, then revision.

    Drafts of like length go through the model together.
    """
    tokenizer = language_model.tokenizer
    order = sorted(range(len(drafts)), key=lambda number: len(drafts[number].text))
    found: dict[int, Rewriting] = {}
    for start in range(0, len(order), at_once):
        numbers = order[start : start + at_once]
        made = _rewrite_together(language_model.model, tokenizer, [drafts[number] for number in numbers])
        found.update(zip(numbers, made, strict=True))
    return [found[number] for number in range(len(drafts))]


def _rewrite_together(model: Any, tokenizer: Any, drafts: Sequence[Draft]) -> list[Rewriting]:
    made = [Rewriting(draft.text) for draft in drafts]
    for step in range(max(len(draft.prompts) for draft in drafts)):
        at_work = [number for number, draft in enumerate(drafts) if step < len(draft.prompts)]
        asked = [drafts[number]._replace(text=made[number].text) for number in at_work]
        for number, said in zip(at_work, _one_principle(model, tokenizer, asked, step), strict=True):
            made[number] = Rewriting(bare_answer(said.text), said.is_whole)
    return made


def _one_principle(model: Any, tokenizer: Any, drafts: Sequence[Draft], step: int) -> list[Said]:
    critiques = [critique_chat(draft.question, draft.text, draft.prompts[step].critique) for draft in drafts]
    criticisms = greedy_answers(model, tokenizer, critiques, most_tokens=CRITIQUE_TOKENS)
    chats = [
        revision_chat(critique, said.text, draft.prompts[step].revision, draft.heed)
        for critique, said, draft in zip(critiques, criticisms, drafts, strict=True)
    ]
    longest = max(len(tokenizer(draft.text, add_special_tokens=False)["input_ids"]) for draft in drafts)
    return greedy_answers(model, tokenizer, chats, most_tokens=longest + SPARE_TOKENS)
