import json
from pathlib import Path
from typing import Any

import pytest

from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.streams.labelled_data import LabelError, LabelledData, NoDataError

CONSTITUTION = default_constitution()
ROWS: dict[str, list[dict[str, Any]]] = {
    "xstest": [{"text": "a", "label": 1}, {"text": "b", "label": 0}],
    "ailuminate_en_us": [{"text": "c", "hazard": "iwp_x"}, {"text": "advice", "hazard": "spc_hlt"}],
    "presidio_synth": [{"text": "d", "spans": [{"type": "US_SSN"}, {"type": "PERSON"}]}],
    "synthetic_secrets": [{"text": "e", "label": 1, "type": "pem"}, {"text": "f", "label": 0, "type": "uuid"}],
    "self_instruct": [{"text": "g", "response": "h"}],
    "openai_moderation": [
        {"text": "i", "label": 1, "categories": {"SH": 1}},
        {"text": "j", "label": 0, "categories": {}},
    ],
}


@pytest.fixture
def data(tmp_path: Path) -> LabelledData:
    for name, rows in ROWS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return LabelledData(tmp_path, CONSTITUTION)


def test_labels_become_the_principles_that_stand_for_them(data: LabelledData) -> None:
    found = {text.text: (set(text.breaches), text.harmful) for text in data.texts()}
    assert found == {
        "a": (set(), True),
        "b": (set(), False),
        "c": ({"weapons"}, True),
        "d": ({"privacy-identity"}, False),
        "e": ({"key-material"}, None),
        "f": (set(), None),
        "g": (set(), False),
        "h": (set(), False),
        "i": ({"self-harm"}, True),
        "j": (set(), False),
    }


def test_an_answer_is_judged_as_one(data: LabelledData) -> None:
    assert {text.text: text.role for text in data.texts()}["h"] == "assistant"


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoDataError):
        LabelledData(tmp_path, CONSTITUTION).texts()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("xstest", b"no JSON"),
        ("xstest", b"\xff\xfe"),
        ("xstest", b"[]"),
        ("xstest", b'{"text": 5, "label": 0}'),
        ("xstest", b'{"label": 1}'),
        ("openai_moderation", b'{"text": "a", "label": 1}'),
        ("openai_moderation", b'{"text": "a", "label": 1, "categories": []}'),
        ("presidio_synth", b'{"text": "a", "spans": [{"kind": 1}]}'),
        ("presidio_synth", b'{"text": "a", "spans": 7}'),
        ("self_instruct", b'{"text": "a", "response": 5}'),
        ("xstest", b"9" * 5_000),
        ("xstest", b"[" * 100_000),
    ],
)
def test_a_line_that_is_no_row_is_named_by_its_place_and_not_shown(tmp_path: Path, name: str, line: bytes) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "dev.jsonl").write_bytes(b"\n" + line)
    with pytest.raises(LabelError, match=r"dev\.jsonl, line 2") as refused:
        LabelledData(tmp_path, CONSTITUTION).texts()
    assert line[:40].decode(errors="replace") not in str(refused.value)


def test_a_mark_at_the_start_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "xstest").mkdir()
    (tmp_path / "xstest" / "dev.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": 1}\n\n')
    assert [text.text for text in LabelledData(tmp_path, CONSTITUTION).texts()] == ["a"]
