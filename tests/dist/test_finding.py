"""Where nodes are found without epmd, and whom a BEAM of our name style would not dial."""

from __future__ import annotations

import pytest

from bridge.dist.finding import OnePort, Place, Places, Resolver, loopback_for, parse_place, undialable


async def test_one_port_for_every_node() -> None:
    resolver: Resolver = OnePort(9100)
    assert await resolver.lookup("anything", "anywhere") == 9100


async def test_a_table_takes_exact_names_first_then_globs_in_order_then_the_rest() -> None:
    places = Places(
        {"*@edge": 9200, "app@edge": "10.0.0.9:9100", "a*@edge": 1, "six@h": "[::1]:9300"},
        otherwise=OnePort(4711),
    )
    assert await places.lookup("app", "edge") == Place("10.0.0.9", 9100)
    assert await places.lookup("api", "edge") == 9200
    assert await places.lookup("six", "h") == Place("::1", 9300)
    assert await places.lookup("six", "elsewhere") == 4711
    assert await Places({}).lookup("app", "edge") is None


@pytest.mark.parametrize("text", ["", "http", "h:", "h:0", "h:65536", ":1", "::1:9100", 0, -1, "h:1x"])
def test_what_is_no_place_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"a place is|brackets"):
        parse_place(text)


def test_a_table_refuses_what_is_no_name() -> None:
    with pytest.raises(ValueError, match="alive@host"):
        Places({"app": 9100})


@pytest.mark.parametrize(
    ("own", "peer", "word"),
    [
        ("laptop", "laptop", None),
        ("laptop", "other", None),
        ("laptop", "other.lan", "short name"),
        ("laptop", "10.0.0.5", "short name"),
        ("a.lan", "b.lan", None),
        ("a.lan", "10.0.0.5", None),
        ("a.lan", "::1", None),
        ("10.0.0.5", "laptop", "long name"),
        ("a.lan", "localhost", "long name"),
        ("::1", "::1", None),
        ("::1", "laptop", None),
        ("laptop", "::1", None),
    ],
)
def test_short_and_long_names_do_not_dial_each_other(own: str, peer: str, word: str | None) -> None:
    """The same table is asked of a BEAM in node/test_finding_beams.py."""
    why = undialable(own, peer)
    assert (why is None) if word is None else (why is not None and word in why)


def test_the_loopback_fits_the_name() -> None:
    assert loopback_for("::1") == loopback_for("fe80::1") == "::1"
    assert loopback_for("laptop") == loopback_for("10.0.0.5") == "127.0.0.1"
