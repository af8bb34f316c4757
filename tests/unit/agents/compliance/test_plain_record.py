import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.plain_record import plain_record
from ctrainer.agents.compliance.shape import shape
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.flywheel import FLYWHEEL_RECORD

TEXT = st.text(max_size=40)
NOTHING = st.sampled_from([{}, {"tool_calls": None}, {"tool_calls": []}, {"tool_call_id": "c1"}, {"name": None}])
MESSAGE = st.builds(
    lambda role, content, rest: {"role": role, "content": content, **rest},
    st.sampled_from(["system", "user", "assistant"]),
    TEXT,
    NOTHING,
)
ANSWER = st.builds(
    lambda content, rest: {"content": content, **rest}, TEXT.filter(lambda text: bool(text.strip())), NOTHING
)
SAID = (
    b'{"timestamp":1764000000,"client_id":"shop","workload_id":"desk","request":{"messages":'
    b'[{"role":"user","content":"Hi"}],"seed":%b},"response":{"choices":[{"message":{"content":%b}}]}}'
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    request = {"messages": draw(st.lists(MESSAGE, min_size=1, max_size=4)), "temperature": 0.5}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "model": st.none() | TEXT,
        "user": st.none() | TEXT,
        "tools": st.sampled_from([None, []]),
        "metadata": st.none() | st.dictionaries(st.sampled_from(["session_id", "thread_id", "x"]), TEXT),
    }
    request |= draw(st.fixed_dictionaries({}, optional=optional))
    return {
        "timestamp": draw(st.integers(0, 9 * 10**13) | st.floats(0, 1e13)),
        "client_id": draw(st.text(st.characters(codec="utf-8", min_codepoint=48), min_size=1, max_size=20)),
        "workload_id": "desk",
        "request": request,
        "response": {"id": "r1", "choices": [{"index": 0, "message": draw(ANSWER), "finish_reason": "stop"}]},
        "contract_version": draw(st.sampled_from([None, "1.0", "1.1"])),
    }


@given(records(), st.sampled_from(["ascii", "utf-8"]))
def test_a_plain_record_gives_the_sample_that_the_full_reader_gives(record: dict[str, Any], encoding: str) -> None:
    def written() -> bytes:
        return json.dumps(record, ensure_ascii=encoding == "ascii").encode("utf-8", "surrogatepass")

    value = written()
    assert (plain_record(value) is not None) is ("/" not in record["client_id"])
    record["request"]["metadata"] = {**(record["request"].get("metadata") or {}), "a number": 1}
    assert plain_record(written()) is None
    assert _outcome(value) == _outcome(written())


def _outcome(value: bytes) -> object:
    try:
        return shape(value)
    except ContractError as error:
        return error.reason, str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": ""},
        {"client_id": "a/b"},
        {"workload_id": "a\n"},
        {"timestamp": -1},
        {"timestamp": 1e14},
        {"timestamp": "7"},
        {"error_details": "boom"},
        {"request": {"messages": []}},
        {"request": {"messages": [{"role": "tool", "content": "x"}]}},
        {"request": {"messages": [{"role": "human", "content": "x"}]}},
        {"request": {"messages": [{"role": "user", "content": None}]}},
        {"request": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}},
        {"request": {"messages": [{"role": "user", "content": "x", "name": "ann"}]}},
        {"request": {"messages": [{"role": "user", "content": "x"}] * 1_001}},
        {"request": {"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}]}},
        {"response": {"choices": []}},
        {"response": {"choices": [{"message": {"content": " "}}]}},
        {"response": {"choices": [{"message": {"content": "x"}}] * 2}},
        {"response": {"choices": [{"message": {"content": "x", "tool_calls": [{"function": {"name": "f"}}]}}]}},
    ],
)
def test_what_needs_a_repair_or_a_refusal_is_left_to_the_full_reader(change: dict[str, Any]) -> None:
    plain = json.loads(SAID % (b"1", b'"Good day."'))
    assert plain_record(json.dumps(plain).encode()) is not None
    assert plain_record(json.dumps({**plain, **change}).encode()) is None


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "fragment",
    [
        *b"01 1. .5 - -0 1e5 1e999 1E+ NaN +1 0x1 1_0 00 1.5.5 tru null [1,] {a:1} [1 2] 'a' [[] {}}".split(),
        *rb'"\ud800" "\udc00" "\ud83d\ude00" "\ud800x" "\q" "\u12" "\uzzzz" "\u+041" "\x41" "\/" "\u0000" "a'.split(),
        *(b'"\x01"', b'"\t"', b'"\n"', b'"\x7f"', b'"\x00"', b"\xef\xbb\xbf1", b"1\x0c", b"\x0b1", b"1\xa0", b"/*c*/1"),
        *(b'"\xff"', b'"\xc3\xa9"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'{"\xff":1}'),
        *(b"[" * 150 + b"]" * 150, b"[" * 100_000 + b"]" * 100_000, b"1" * 400 + b".5"),
    ],
)
def test_what_is_read_fast_is_json_to_the_full_reader_as_well(fragment: bytes, place: int) -> None:
    value = SAID % ((fragment, b'"x"') if place == 0 else (b"1", fragment))
    plain = plain_record(value)
    if plain is not None:
        full = FLYWHEEL_RECORD.validate_json(value)
        assert [{"message": {"content": plain.response.choices[0].message.content}}] == full["response"]["choices"]
