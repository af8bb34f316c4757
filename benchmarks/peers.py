"""CPU microseconds a text of what others use. Runs in an environment of their own:

pip install presidio-analyzer==2.2.366 scrubadub==2.0.1 datafog==4.9.0 nemoguardrails==0.24.1

Standard input is a JSON object: the `texts`, and the `patterns` for what brings none of its own.
"""  # noqa: D415 - a usage

import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable

RAIL_PATTERNS = 50
RAIL_TEXTS = 200
"""A rail takes milliseconds for a text: so many of the corpus are enough."""


def presidio() -> Callable[[str], object]:
    """Presidio's pattern recognizers without a language model."""
    from presidio_analyzer import RecognizerRegistry  # noqa: PLC0415 - there only where it is installed
    from presidio_analyzer.pattern_recognizer import PatternRecognizer  # noqa: PLC0415

    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"])
    recognizers = [one for one in registry.recognizers if isinstance(one, PatternRecognizer)]
    return lambda text: [one.analyze(text, one.supported_entities, None) for one in recognizers]


def scrubadub() -> Callable[[str], object]:
    """The default detectors of scrubadub."""
    import scrubadub as package  # noqa: PLC0415 - there only where it is installed

    scrubber = package.Scrubber()
    return lambda text: list(scrubber.iter_filth(text))


def datafog() -> Callable[[str], object]:
    """The regular expressions of datafog."""
    from datafog.processing.text_processing.regex_annotator.regex_annotator import (  # noqa: PLC0415
        RegexAnnotator,
    )

    annotate: Callable[[str], object] = RegexAnnotator().annotate
    return annotate


def nemoguardrails(patterns: list[str]) -> Callable[[str], object]:
    """The input rail `regex check input` of NeMo Guardrails, without a language model."""
    from nemoguardrails import LLMRails, RailsConfig  # noqa: PLC0415 - there only where it is installed

    known = [pattern for pattern in patterns if _compiles(pattern)][:RAIL_PATTERNS]
    rails = {"config": {"regex_detection": {"input": {"patterns": known}}}, "input": {"flows": ["regex check input"]}}
    rail = LLMRails(RailsConfig.from_content(yaml_content=json.dumps({"models": [], "rails": rails})))

    def look(text: str) -> object:
        return rail.generate(messages=[{"role": "user", "content": text}], options={"rails": ["input"]})

    return look


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def main() -> None:
    """Print a JSON object of microseconds by peer; what is not installed is left out."""
    given = json.load(sys.stdin)
    texts: list[str] = given["texts"]
    peers = {"presidio_analyzer": presidio, "scrubadub": scrubadub, "datafog": datafog}
    found = {name: _microseconds(make(), texts) for name, make in peers.items() if importlib.util.find_spec(name)}
    if importlib.util.find_spec("nemoguardrails"):
        found["nemoguardrails"] = _microseconds(nemoguardrails(given["patterns"]), texts[:RAIL_TEXTS])
    print(json.dumps(found))


def _microseconds(look: Callable[[str], object], texts: list[str]) -> float:
    for text in texts[:20]:
        look(text)
    started = time.process_time()
    for text in texts:
        look(text)
    return (time.process_time() - started) / len(texts) * 1e6


if __name__ == "__main__":
    main()
