import base64
import doctest
import random
import time

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.detectors import encoded
from ctrainer.agents.compliance.detectors.encoded import MAXIMUM_CHARACTERS, TRIGGER, decoded_views

SECRET = "password: Harbour42! for ann@example.org"
STANDARD = base64.b64encode(SECRET.encode()).decode()
ENCODINGS = [
    STANDARD,
    STANDARD.rstrip("="),
    base64.urlsafe_b64encode(f"{SECRET} ???>>>".encode()).decode(),
    base64.b64encode(SECRET.encode("utf-16le")).decode(),
    base64.b64encode(STANDARD.encode()).decode(),
    base64.encodebytes((SECRET * 4).encode()).decode(),
    base64.b64encode(f"пароль: é {SECRET}".encode()).decode(),
    SECRET.encode().hex(),
    SECRET.encode().hex().upper(),
    "".join(f"\\x{byte:02x}" for byte in SECRET.encode()),
    "".join(f"\\u00{byte:02x}" for byte in SECRET.encode()),
    "".join(f"%{byte:02X}" for byte in SECRET.encode()),
    STANDARD.encode().hex(),
    base64.b32encode(SECRET.encode()).decode(),
    base64.b32encode(SECRET.encode()).decode().rstrip("="),
    SECRET.encode().hex(" "),
    SECRET.encode().hex(":").upper(),
]


def views(text: str) -> list[str]:
    return [decoded for _, _, decoded in decoded_views(text)]


def test_documented_examples_hold() -> None:
    assert doctest.testmod(encoded).failed == 0


@pytest.mark.parametrize("run", ENCODINGS)
@pytest.mark.parametrize("frame", ["{}", "see {} there", "token={}", "/a/long/path/to/it/{}", '{{"data": "{}"}}'])
def test_what_an_encoding_hides_is_seen_and_the_trigger_hits(frame: str, run: str) -> None:
    text = frame.format(run)
    assert any(SECRET in decoded for decoded in views(text))
    assert re2.search(TRIGGER, text)


@given(st.text("abc .:=/", max_size=20), st.sampled_from(ENCODINGS[:1] + ENCODINGS[7:9]), st.text(" .:\n", max_size=20))
def test_the_span_holds_the_whole_run(before: str, run: str, after: str) -> None:
    text = f"{before} {run} {after}"
    assert any(text[start:end] == run for start, end, decoded in decoded_views(text) if decoded == SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "0000000 7f 45 4c 46 02 01 01 00 00 00 00 00 00 00 00 00",
        "SHA1 5E:8F:16:06:2E:A3:CD:2C:4A:0D:54:78:76:BA:A6:F3:8C:AB:F6:25",
        "A_CONSTANT_WITH_A_VERY_LONG_NAME_OF_MANY_WORDS",
        "MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43UOV3HO6DZPIQQQQQQ"[:30],
        "%",
    ],
)
def test_bytes_that_are_no_text_say_nothing(text: str) -> None:
    assert views(text) == []


def test_an_escaped_address_in_a_link_is_seen() -> None:
    text = "https://example.org/?to=ann%40example.org&x=1"
    assert list(decoded_views(text)) == [(24, 41, "ann@example.org")]


@given(st.binary(min_size=16, max_size=200))
def test_no_input_breaks_it(data: bytes) -> None:
    for text in (data.hex(), base64.b64encode(data).decode(), data.decode("latin-1"), "%" + data.decode("latin-1")):
        for start, end, _ in decoded_views(text):
            assert 0 <= start < end <= len(text)


def test_hashes_images_and_identifiers_say_nothing() -> None:
    draw = random.Random(5)
    lengths = [16, 20, 32, 64, 3000]
    texts = [draw.randbytes(draw.choice(lengths)) for _ in range(2000)]
    assert not [view for data in texts for view in views(data.hex())]
    assert not [view for data in texts for view in views(base64.b64encode(data).decode())]
    assert views("c934a8fa-fbd8-47a9-8c3c-4038044ba1da") == []
    assert views("AbstractSingletonProxyFactoryBeanInternationalization") == []


@pytest.mark.parametrize(
    "unit", ["a", "%", "%4", "%41", "ab ", "+/", "\\x4", "\\x41", "A" * 70 + "\n", "=", "abcdefghijklmnopqrstuvwxyz "]
)
def test_the_time_grows_with_the_length_alone(unit: str) -> None:
    started = time.process_time()
    sum(1 for _ in decoded_views(unit * (1_000_000 // len(unit))))
    assert time.process_time() - started < 5


def test_decoding_ends_after_so_many_characters() -> None:
    run = base64.b64encode(b"plain words " * 1000).decode()
    total = sum(len(view) for view in views(f"{run} " * 200))
    assert total < MAXIMUM_CHARACTERS + 2 * 12_000
