from uuid import UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st

from ctrainer.schemas.identity import NAMESPACE, canonical_bytes, content_digest, event_id, sample_id, source_reference

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PLACES = st.tuples(st.sampled_from(["a", "a.b", "b"]), st.integers(0, 20), st.integers(0, 2**40))


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_order_of_keys_does_not_change_the_bytes(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_bytes(value) == canonical_bytes(turned)


@given(PLACES, PLACES)
def test_two_records_never_share_an_id(one: tuple[str, int, int], other: tuple[str, int, int]) -> None:
    assert (source_reference(*one) == source_reference(*other)) == (one == other)
    assert (sample_id(*one) == sample_id(*other)) == (one == other)


def test_an_id_depends_on_source_kind_and_constitution() -> None:
    ids = {event_id(*each) for each in (("a/0/1", "X", "d"), ("a/0/2", "X", "d"), ("a/0/1", "Y", "d"), ("a/0/1", "X"))}
    assert len(ids) == 4
    assert all(UUID(found).version == 5 for found in ids)


def test_a_digest_names_its_algorithm() -> None:
    assert content_digest(b"a") == "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


@given(st.text(max_size=40))
def test_an_id_is_the_uuid5_of_its_parts(text: str) -> None:
    assert event_id(text, "X", "d") == str(uuid5(NAMESPACE, f"{text}/X/d"))
