"""The two codecs are one: the same values, bytes and errors, for terms, nonsense and in between."""

from typing import Any

import pytest
from etf_support import both_codecs, exact, outcome, terms, unhurried
from hypothesis import given, settings
from hypothesis import strategies as st

import bridge.etf
from bridge.etf import DecodeError, Limits, _reference, canonical, decode_bare, encode

SMALL = Limits(depth_max=4, terms_max=40, key_depth_max=2, integer_bytes_max=9)


@both_codecs
@unhurried
@given(term=terms)
def test_what_is_encoded_decodes_to_itself(codec: Any, term: Any) -> None:
    assert exact(codec.decode(codec.encode(term))) == exact(term)
    assert exact(codec.decode_bare(b"xx" + codec.encode_bare(term) + b"yy", 2)) == exact(
        (term, 2 + len(codec.encode_bare(term)))
    )


@unhurried
@given(term=terms)
def test_terms_have_the_same_bytes_in_both(term: Any) -> None:
    assert bridge.etf.encode(term) == _reference.encode(term)
    assert canonical(term) == _reference.canonical(term)
    assert outcome(encode, term, limits=SMALL) == outcome(_reference.encode, term, limits=SMALL)


@unhurried
@given(term=terms)
def test_canonical_bytes_are_those_of_the_same_term(term: Any) -> None:
    again, end = decode_bare(canonical(term))
    assert end == len(canonical(term))
    assert canonical(again) == canonical(term)


@settings(unhurried, max_examples=300)
@given(term=terms, data=st.data())
def test_changed_bytes_give_the_same_term_or_the_same_error_in_both(term: Any, data: Any) -> None:
    encoded = bytearray(encode(term))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        match data.draw(st.sampled_from(["set", "flip", "tag", "cut", "insert"])):
            case "set":
                encoded[at] = data.draw(st.integers(0, 255))
            case "flip":
                encoded[at] ^= 1 << data.draw(st.integers(0, 7))
            case "tag":
                encoded[at] = data.draw(st.integers(67, 121))
            case "cut":
                del encoded[at + 1 :]
            case _:
                encoded[at:at] = data.draw(st.binary(max_size=6))
    both_agree_on(bytes(encoded))


@settings(unhurried, max_examples=300)
@given(data=st.lists(st.one_of(st.integers(0, 3), st.integers(67, 121)), max_size=60))
def test_nonsense_made_of_tags_gives_the_same_outcome_in_both(data: list[int]) -> None:
    both_agree_on(b"\x83" + bytes(data))


@unhurried
@given(data=st.binary(max_size=200))
def test_garbage_gives_a_term_or_decode_error_and_nothing_else(data: bytes) -> None:
    both_agree_on(data)
    both_agree_on(b"\x83" + data)


def both_agree_on(data: bytes) -> None:
    atoms = [bridge.etf.Atom("zero"), bridge.etf.Atom("true")]
    for options in ({}, {"atoms": atoms}, {"limits": SMALL}, {"allow_compressed": True}):
        ours, theirs = (
            outcome(codec.decode, data, **options) for codec in (bridge.etf, _reference)
        )
        assert ours == theirs, (data, options)


@both_codecs
@unhurried
@given(term=terms)
def test_a_term_cut_short_anywhere_is_refused(codec: Any, term: Any) -> None:
    data = codec.encode(term)
    for size in range(min(len(data), 200)):
        with pytest.raises(DecodeError) as refused:
            codec.decode(data[:size])
        assert refused.value.rule in ("truncated", "count")
        assert refused.value.offset <= size
