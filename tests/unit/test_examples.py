import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_generator_writes_the_same_bytes_again() -> None:
    generated = runpy.run_path(str(EXAMPLES / "generate.py"))["lines"]()
    assert (EXAMPLES / "flywheel.jsonl").read_text(encoding="utf-8") == "\n".join(generated) + "\n"
