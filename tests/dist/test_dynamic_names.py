"""NAME_ME: a peer that asks for a name gets one, and we take one (dist-protocol.md, 2.4b)."""

from __future__ import annotations

import struct

import pytest
from handshake_support import ALICE, BOB, COOKIE, acceptor, feed, initiator, splits

from bridge.dist.errors import RemoteProtocolError
from bridge.dist.flags import NAME_ME
from bridge.dist.handshake_events import Established, Identity, Offered, Proven, Status
from bridge.dist.handshake_messages import Named, frame, parse_challenge, parse_name, parse_status
from bridge.dist.names import base36

ASKER = Identity("undefined@127.0.0.1", 99)
GIVEN = ("3W5E11264SGSG@127.0.0.1", 77)


def asking() -> bytes:
    core = initiator(identity=ASKER, ask_for_name=True)
    return core.data_to_send()


def test_the_name_message_of_an_asker_holds_its_host_alone_and_creation_0() -> None:
    message = parse_name(asking()[2:])
    assert message.name == "127.0.0.1"
    assert message.creation == 0
    assert message.flags & NAME_ME


def test_both_sides_in_any_split_agree_on_the_name_that_was_given() -> None:
    for pieces in splits(asking()):
        a = initiator(identity=ASKER, ask_for_name=True)
        a.data_to_send()
        b = acceptor(give_name=lambda host: (f"{GIVEN[0].partition('@')[0]}@{host}", GIVEN[1]))
        [offered] = feed(b, pieces)
        assert isinstance(offered, Offered)
        assert (offered.peer.name, offered.peer.creation) == GIVEN
        b.decide(Status.OK)
        assert feed(a, [b.data_to_send()]) == []
        [proven] = feed(b, [a.data_to_send()])
        assert isinstance(proven, Proven)
        assert proven.peer.name == GIVEN[0]
        b.confirm()
        [established] = feed(a, [b.data_to_send()])
        assert isinstance(established, Established)
        assert established.peer.name == BOB.name
        assert (a.identity.name, a.identity.creation) == GIVEN


def test_the_challenge_to_a_named_peer_says_so() -> None:
    b = acceptor(give_name=lambda host: GIVEN)
    feed(b, [asking()])
    b.decide(Status.OK)
    sent = b.data_to_send()
    size = struct.unpack(">H", sent[:2])[0]
    assert parse_status(sent[2 : 2 + size]) == Named(*GIVEN)
    assert parse_challenge(sent[4 + size :]).flags & NAME_ME


def test_the_status_has_the_layout_of_the_reference() -> None:
    assert Named("x@h", 77).encode() == b"snamed:\x00\x03x@h\x00\x00\x00M"
    assert parse_status(b"snamed:\x00\x03x@h\x00\x00\x00M and more") == Named("x@h", 77)


@pytest.mark.parametrize("body", [b"snamed:", b"snamed:\x00\x03x@", b"snamed:\x00\x03x@h\x00\x00M"])
def test_a_status_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_status(body)


def test_without_a_giver_an_asker_is_not_allowed() -> None:
    b = acceptor()
    with pytest.raises(RemoteProtocolError, match="names"):
        feed(b, [asking()])
    assert b.data_to_send() == frame(b"snot_allowed")


@pytest.mark.parametrize("host", ["", "a@b", "h\x00", "h " * 3, "h" * 254])
def test_a_host_that_makes_no_name_is_nok(host: str) -> None:
    b = acceptor(give_name=lambda host: GIVEN)
    body = struct.pack(">BQIH", ord("N"), ALICE.flags | NAME_ME, 0, len(host)) + host.encode()
    with pytest.raises(RemoteProtocolError):
        feed(b, [frame(body)])
    assert b.data_to_send() == frame(b"snok")


@pytest.mark.parametrize(
    ("name", "creation", "rule"),
    [
        ("x@elsewhere", 77, "another host"),
        ("no name", 77, "is none"),
        (BOB.name, 77, "own name"),
        ("x@127.0.0.1", 0, "creation 0"),
    ],
)
def test_a_name_that_we_could_not_use_is_refused(name: str, creation: int, rule: str) -> None:
    a = initiator(identity=ASKER, ask_for_name=True)
    with pytest.raises(RemoteProtocolError, match=rule):
        feed(a, [frame(Named(name, creation).encode())])


@pytest.mark.parametrize("status", [b"sok", b"sok_simultaneous", b"salive"])
def test_who_asked_for_a_name_goes_on_with_nothing_less(status: bytes) -> None:
    a = initiator(identity=ASKER, ask_for_name=True)
    with pytest.raises(RemoteProtocolError, match="asked for a name"):
        feed(a, [frame(status)])


def test_who_did_not_ask_takes_no_name() -> None:
    with pytest.raises(RemoteProtocolError, match="a status is one of"):
        feed(initiator(), [frame(Named(*GIVEN).encode())])


def test_a_wrong_cookie_is_found_out_as_ever() -> None:
    a = initiator(identity=ASKER, ask_for_name=True, cookie=COOKIE)
    b = acceptor(give_name=lambda host: GIVEN, cookie=type(COOKIE)("another"))
    feed(b, [a.data_to_send()])
    b.decide(Status.OK)
    feed(a, [b.data_to_send()])
    with pytest.raises(RemoteProtocolError, match="wrong cookie"):
        feed(b, [a.data_to_send()])


@pytest.mark.parametrize("number", [0, 35, 36, 2**64 - 1])
def test_base_36_is_python_s(number: int) -> None:
    assert int(base36(number), 36) == number
