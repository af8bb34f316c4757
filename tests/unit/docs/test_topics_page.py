import importlib.util
from pathlib import Path
from types import ModuleType

from ctrainer.schemas.catalogue import CATALOGUE
from ctrainer.schemas.topics import TOPICS

ROOT = Path(__file__).parents[3]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("topics_page", ROOT / "scripts" / "topics_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_contract_says() -> None:
    written = (ROOT / "docs" / "topics.md").read_text(encoding="utf-8")
    assert written == load_script().page(), "run `python scripts/topics_page.py`"


def test_every_topic_has_a_place_in_the_catalogue() -> None:
    assert set(CATALOGUE) == set(TOPICS)
