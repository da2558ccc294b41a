"""Control messages: every operation of dist-protocol.md, 4.1, both ways."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.dist import control as c
from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, Pid, Reference, decode_bare, encode_bare

US = Pid(Atom("us@h"), 1, 0, 5)
YOU = Pid(Atom("you@h"), 2, 3, 4)
REF = Reference(Atom("you@h"), 4, (1, 2, 3, 4, 5))
NAME, EMPTY, REASON = Atom("name"), Atom(""), (Atom("bad"), 1)
TOKEN = (1, 2, 3, YOU, 4)
MFA = (Atom("erpc"), Atom("execute_call"), 4)

OPERATIONS: list[tuple[tuple[Any, ...], bool, c.ControlMessage]] = [
    ((1, YOU, US), False, c.Link(YOU, US)),
    ((2, EMPTY, US), True, c.Send(None, US)),
    ((3, YOU, US, REASON), False, c.Exit(YOU, US, REASON)),
    ((4, YOU, US), False, c.Unlink(YOU, US)),
    ((6, YOU, EMPTY, NAME), True, c.RegSend(YOU, NAME)),
    ((7, YOU, US), False, c.GroupLeader(YOU, US)),
    ((8, YOU, US, REASON), False, c.Exit2(YOU, US, REASON)),
    ((12, EMPTY, US, TOKEN), True, c.Send(None, US, TOKEN)),
    ((13, YOU, US, TOKEN, REASON), False, c.Exit(YOU, US, REASON, TOKEN)),
    ((16, YOU, EMPTY, NAME, TOKEN), True, c.RegSend(YOU, NAME, TOKEN)),
    ((18, YOU, US, TOKEN, REASON), False, c.Exit2(YOU, US, REASON, TOKEN)),
    ((19, YOU, US, REF), False, c.MonitorP(YOU, US, REF)),
    ((19, YOU, NAME, REF), False, c.MonitorP(YOU, NAME, REF)),
    ((20, YOU, US, REF), False, c.DemonitorP(YOU, US, REF)),
    ((20, YOU, NAME, REF), False, c.DemonitorP(YOU, NAME, REF)),
    ((21, YOU, US, REF, REASON), False, c.MonitorPExit(YOU, US, REF, REASON)),
    ((21, NAME, US, REF, REASON), False, c.MonitorPExit(NAME, US, REF, REASON)),
    ((22, YOU, US), True, c.Send(YOU, US)),
    ((23, YOU, US, TOKEN), True, c.Send(YOU, US, TOKEN)),
    ((24, YOU, US), True, c.Exit(YOU, US)),
    ((25, YOU, US, TOKEN), True, c.Exit(YOU, US, token=TOKEN)),
    ((26, YOU, US), True, c.Exit2(YOU, US)),
    ((27, YOU, US, TOKEN), True, c.Exit2(YOU, US, token=TOKEN)),
    ((28, NAME, US, REF), True, c.MonitorPExit(NAME, US, REF)),
    ((29, REF, YOU, YOU, MFA, []), True, c.SpawnRequest(REF, YOU, YOU, MFA, [])),
    ((30, REF, YOU, YOU, MFA, [], TOKEN), True, c.SpawnRequest(REF, YOU, YOU, MFA, [], TOKEN)),
    ((31, REF, US, 2, YOU), False, c.SpawnReply(REF, US, 2, YOU)),
    ((31, REF, US, 0, Atom("notsup")), False, c.SpawnReply(REF, US, 0, Atom("notsup"))),
    ((32, REF, US, 1, YOU, TOKEN), False, c.SpawnReply(REF, US, 1, YOU, TOKEN)),
    ((33, YOU, REF), True, c.AliasSend(YOU, REF)),
    ((34, YOU, REF, TOKEN), True, c.AliasSend(YOU, REF, TOKEN)),
    ((35, 2**64 - 1, YOU, US), False, c.UnlinkId(2**64 - 1, YOU, US)),
    ((36, 1, YOU, US), False, c.UnlinkIdAck(1, YOU, US)),
    ((37, 0, YOU, US), True, c.AltactSend(0, YOU, US)),
    ((37, 4, YOU, REF), True, c.AltactSend(4, YOU, REF)),
    ((37, 9, YOU, NAME), True, c.AltactSend(9, YOU, NAME)),
    ((37, 17, YOU, US), True, c.AltactSend(17, YOU, US)),
    ((37, 6, YOU, REF, TOKEN), True, c.AltactSend(6, YOU, REF, TOKEN)),
]


@pytest.mark.parametrize(("term", "payload", "message"), OPERATIONS)
def test_an_operation_both_ways(term: Any, payload: bool, message: c.ControlMessage) -> None:
    assert c.has_payload(term[0]) == payload
    assert c.parse(term, payload=payload) == message
    assert c.to_tuple(message) == term
    assert decode_bare(encode_bare(term)) == (term, len(encode_bare(term)))


def test_the_table_above_has_every_operation_that_exists() -> None:
    numbers = {term[0] for term, _, _ in OPERATIONS}
    assert numbers == set(range(1, 38)) - {5, 9, 10, 11, 14, 15, 17}


@pytest.mark.parametrize("number", [0, 5, 9, 10, 11, 14, 15, 17, 38, 2**70, -1])
def test_an_operation_that_does_not_exist_is_refused(number: int) -> None:
    with pytest.raises(RemoteProtocolError, match="is not an operation"):
        c.parse((number, YOU, US), payload=False)


@pytest.mark.parametrize("term", [(), [1, YOU, US], (True, YOU, US), (Atom("link"), YOU), 1, None])
def test_a_control_message_is_a_tuple_with_a_number(term: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="begins with an operation number"):
        c.parse(term, payload=False)


@pytest.mark.parametrize(("term", "payload", "_message"), OPERATIONS)
def test_arity_and_payload_are_exact(term: Any, payload: bool, _message: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="payload"):
        c.parse(term, payload=not payload)
    with pytest.raises(RemoteProtocolError, match=f"operation {term[0]} has"):
        c.parse(term[:2], payload=payload)
    if term[0] != 37:
        with pytest.raises(RemoteProtocolError, match="elements"):
            c.parse((*term, 1), payload=payload)


def test_op_37_may_have_more_elements_and_unknown_bits() -> None:
    flags = 2**70 | 4
    parsed = c.parse((37, flags, YOU, REF, Atom("later"), 1), payload=True)
    assert parsed == c.AltactSend(flags, YOU, REF)


@pytest.mark.parametrize(
    "term",
    [
        (1, NAME, US),
        (6, YOU, EMPTY, US),
        (19, YOU, US, 1),
        (19, YOU, REF, REF),
        (28, 1, US, REF),
        (29, REF, YOU, YOU, (NAME, NAME, 256), []),
        (33, YOU, US),
        (35, 0, YOU, US),
        (35, 2**64, YOU, US),
        (35, True, YOU, US),
        (37, 4, YOU, US),
        (37, 8, YOU, US),
        (37, 2, YOU, US),
        (37, -1, YOU, US),
    ],
)
def test_a_field_of_a_wrong_type_is_refused(term: Any) -> None:
    with pytest.raises(RemoteProtocolError, match=f"operation {term[0]}"):
        c.parse(term, payload=c.has_payload(term[0]))


@pytest.mark.parametrize("atom", [None, True, False])
def test_nil_true_and_false_are_names_like_others(atom: Any) -> None:
    assert c.parse((6, YOU, EMPTY, atom), payload=True) == c.RegSend(YOU, atom)
