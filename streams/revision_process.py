"""The model that rewrites as a process of its own: `python -m ctrainer.streams.revision_process`.

Says `{"ready": true}` when it can be asked. Then each line on standard input is a question, and each line on standard
output its answer, until standard input ends. Texts are in these lines only, never in the log.
"""

import os
import sys
from typing import Any, BinaryIO

import orjson
import torch

from ctrainer.streams.logs import configure_logs
from ctrainer.streams.settings import Settings
from ctrainer.trainer.generation import generation_type
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.revision import Draft, Prompts
from ctrainer.trainer.rewriting import rewrite
from ctrainer.trainer.similarity import WordEmbeddings


def main() -> int:
    """Answer until nobody asks any more; return the exit code."""
    answers = _own_output()
    configure_logs()
    settings = Settings.read()
    embeddings = WordEmbeddings.packaged()
    language_model = load_model(settings.revision_model, cache_folder=settings.cache_folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    language_model.model.to(device, dtype=generation_type(device))
    _say(answers, {"ready": True})
    for line in sys.stdin.buffer:
        _say(answers, _answer(orjson.loads(line), language_model, embeddings))
    return 0


def _answer(question: dict[str, Any], language_model: LanguageModel, embeddings: WordEmbeddings) -> dict[str, Any]:
    if "pairs" in question:
        return {"similarities": [embeddings.similarity(first, second) for first, second in question["pairs"]]}
    return {"rewritings": rewrite(language_model, [_draft(*asked) for asked in question["drafts"]])}


def _draft(question: str, text: str, prompts: list[list[str]], heed: str) -> Draft:
    return Draft(question, text, tuple(Prompts(*pair) for pair in prompts), heed)


def _own_output() -> BinaryIO:
    """Keep standard output for answers alone: what libraries print goes to the log."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _say(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(orjson.dumps(answer, default=list) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
