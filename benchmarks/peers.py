"""CPU microseconds a text of what others use, on texts from standard input. Runs in an environment of their own:

pip install presidio-analyzer scrubadub datafog
"""  # noqa: D415 - a usage

import importlib.util
import json
import sys
import time
from collections.abc import Callable


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


def main() -> None:
    """Print a JSON object of microseconds by peer; what is not installed is left out."""
    texts: list[str] = json.load(sys.stdin)
    peers = {"presidio_analyzer": presidio, "scrubadub": scrubadub, "datafog": datafog}
    found = {name: make() for name, make in peers.items() if importlib.util.find_spec(name)}
    print(json.dumps({name: _microseconds(look, texts) for name, look in found.items()}))


def _microseconds(look: Callable[[str], object], texts: list[str]) -> float:
    for text in texts[:50]:
        look(text)
    started = time.process_time()
    for text in texts:
        look(text)
    return (time.process_time() - started) / len(texts) * 1e6


if __name__ == "__main__":
    main()
