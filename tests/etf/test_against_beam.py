"""Our codec against BEAMs: they read what we send, and get back what they sent bit for bit."""

from collections.abc import Iterator
from typing import Any

import pytest
from beam_echo import Echo, Refused, beam, releases
from etf_support import both_codecs, exact, terms_without_funs
from hypothesis import HealthCheck, given, settings
from test_golden_vectors import VECTORS, Vector

import bridge.etf
from bridge.etf import Atom, Export, Map, Port, canonical, decode, encode

pytestmark = [
    pytest.mark.beam,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not releases(), reason="no erl on PATH"),
]

SLOW_STARTER = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.fixture(scope="module", params=releases() or [""], ids=lambda erl: erl.lstrip("/"))
def echo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Echo]:
    with beam(request.param, tmp_path_factory.mktemp("beam")) as running:
        yield running


@SLOW_STARTER
@given(term=terms_without_funs)
def test_a_beam_reads_what_we_send_and_sends_it_back(echo: Echo, term: Any) -> None:
    data = encode(term)
    back = echo.echo(data)
    # The order of a map's entries is the BEAM's own, and so is the form of ports.
    assert canonical(decode(back)) == canonical(term)
    assert echo.same(data, back)
    if not sends_all_ports_in_v4(echo):
        assert len(back) == len(data)


def sends_all_ports_in_v4(echo: Echo) -> bool:
    """OTP 27 and later; OTP 25 does so with large ids only, and so do we."""
    return echo.echo(encode(Port(Atom("a@b"), 1, 1)))[1:2] == b"x"


@both_codecs
def test_what_a_beam_sends_goes_back_bit_for_bit(echo: Echo, codec: Any) -> None:
    v4 = sends_all_ports_in_v4(echo)
    kinds = set()
    for seed in range(400):
        data = echo.random_term(seed)
        term = codec.decode(data)
        back = codec.encode(term)
        kinds |= {type(term).__name__}
        if back != data:
            assert v4
            assert b"Yw\x0dnonode@nohost" in back  # a port
        assert echo.same(back, data)
        assert echo.echo(back) == echo.echo(data)
    assert {"tuple", "list", "dict", "Map", "ImproperList", "Fun", "int"} <= kinds


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if "RECORD" not in v.name], ids=lambda vector: vector.name
)
def test_a_beam_takes_each_vector_for_the_same_term(echo: Echo, vector: Vector) -> None:
    received, sent = b"\x83" + vector.wire, encode(vector.term)
    assert echo.same(received, sent)
    assert exact(decode(echo.echo(sent))) == exact(vector.term)


REFUSED_BY_BOTH = {
    "NaN": b"F\x7f\xf8\0\0\0\0\0\0",
    "an overlong atom": b"w\x02\xc0\x80",
    "an atom with surrogates": b"w\x03\xed\xa0\x80",
    "an atom of 256 characters": b"v\x01\0" + b"a" * 256,
    "a key twice": b"t\0\0\0\x02a\x01ja\x01j",
    "a map key twice, entries turned round": (
        b"t\0\0\0\x02" + b"t\0\0\0\x02a\x01ja\x02jj" + b"t\0\0\0\x02a\x02ja\x01jj"
    ),
    "LOCAL_EXT": b"y\0\0\0\0\0\0\0\0j",
    "FUN_EXT": b"u\0\0\0\0" + b"j" * 9,
    "a bitstring of nine bits": b"M\0\0\0\x01\x09\xff",
    "a reference of six words": b"Z\0\x06w\x03a@b" + b"\0" * 28,
    "an old pid with a wide creation": b"gw\x03a@b" + b"\0" * 8 + b"\x04",
    "a count that lies": b"l\xff\xff\xff\xffjj",
    "a name that is no atom": b"Xj" + b"\0" * 12,
    "a term cut short": b"h\x02j",
}


@pytest.mark.parametrize("wire", REFUSED_BY_BOTH.values(), ids=REFUSED_BY_BOTH.keys())
def test_what_a_beam_refuses_we_refuse(echo: Echo, wire: bytes) -> None:
    with pytest.raises(Refused):
        echo.echo(b"\x83" + wire)
    with pytest.raises(bridge.etf.DecodeError):
        decode(b"\x83" + wire)


def test_a_beam_sends_bytes_as_we_do(echo: Echo) -> None:
    for term in (
        [0, 255],
        [0, 256],
        list(range(256)) * 255 + [0] * 255,
        [7] * 65535,
        [7] * 65536,
        (0,) * 255,
        (0,) * 256,
        *(
            sign * 2**bits + d
            for sign in (1, -1)
            for bits in (8, 31, 32, 63, 64, 2039, 2040, 2048)
            for d in (-1, 0, 1)
        ),
        2 ** (8 * 524_280) - 1,
        -0.0,
        Atom("é" * 127),
        Atom("é" * 128),
        Atom("🌍" * 255),
        Export(Atom("nil"), Atom("true"), 255),
        {Atom("a"): [1]},
        [True, False, None, Atom("undefined")],
    ):
        assert echo.echo(encode(term)) == encode(term)


def test_a_deep_term_goes_there_and_back(echo: Echo) -> None:
    for opening, closing in ((b"l\0\0\0\x01", b"j"), (b"h\x01", b""), (b"t\0\0\0\x01a\x01", b"")):
        data = b"\x83" + opening * 10_000 + b"a\x01" + closing * 10_000
        if opening[:1] == b"l":  # its innermost list is a string for a BEAM
            data = b"\x83" + opening * 9_999 + b"k\0\x01\x01" + closing * 9_999
        assert echo.echo(encode(decode(data))) == data


def test_keys_are_one_term_for_us_when_they_are_for_a_beam(echo: Echo) -> None:
    keys: list[Any] = [0, 0.0, False, 1, 1.0, True, [], (), b"", "", {}, [1], [1.0], (1,), (1.0,)]
    keys += [{1: 2}, {1.0: 2}, Map([([], 1)]), None, Atom("nil"), Atom("undefined"), "nil"]
    for left in keys:
        for right in keys:
            assert echo.same(encode(left), encode(right)) == (canonical(left) == canonical(right))


def test_zeros_of_both_signs_are_one_key_before_otp_27_and_two_since(echo: Echo) -> None:
    assert canonical(0.0) != canonical(-0.0)
    both = b"\x83t\0\0\0\x02F" + bytes(8) + b"jF\x80" + bytes(7) + b"j"
    assert len(decode(both)) == 2  # type: ignore[arg-type]
    if echo.same(encode(0.0), encode(-0.0)):
        with pytest.raises(Refused):
            echo.echo(both)
    else:
        assert decode(echo.echo(both)) == decode(both)
