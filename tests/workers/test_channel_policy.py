"""What workers may write to and say ([roles.NAME.callback]), and how fast they are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, BitString, Export, ImproperList, Map, Pid, Port, Reference
from bridge.workers.channel.pace import BURST_S, Pace
from bridge.workers.channel.packets import Code, NotHad
from bridge.workers.channel.policy import AtomBudget, CallbackPolicy, check_term, pattern

OWN = "bridge@here"
APP, AWAY = "app@here", "away@there"


def policy(
    *allow: str, pids: tuple[str, ...] = (), connected: tuple[str, ...] = (APP,)
) -> CallbackPolicy:
    return CallbackPolicy(allow=allow, pids=pids, own=OWN, connected=connected.__contains__)


def pid(node: str) -> Pid:
    return Pid(Atom(node), 1, 0, 1)


def at(name: str, node: str) -> tuple[Atom, Atom]:
    return (Atom(name), Atom(node))


def refused_by(rules: CallbackPolicy, dest: Any) -> Code:
    with pytest.raises(NotHad) as error:
        rules.address(dest)
    return error.value.code


def test_nothing_is_allowed_by_default() -> None:
    for dest in (Atom("name"), at("name", APP), pid(APP), pid(OWN)):
        assert refused_by(policy(), dest) is Code.REFUSED


def test_a_name_is_allowed_on_every_connected_node_and_our_own() -> None:
    rules = policy("tracker")
    assert rules.address(Atom("tracker")) == at("tracker", OWN)
    assert rules.address(at("tracker", APP)) == at("tracker", APP)
    assert refused_by(rules, at("tracker2", APP)) is Code.REFUSED
    # Nobody is dialled for a worker, whatever node it makes up.
    assert refused_by(rules, at("tracker", AWAY)) is Code.NO_CONNECTION


def test_a_name_at_a_node_is_allowed_there_alone_and_may_be_dialled() -> None:
    rules = policy(f"tracker@{AWAY}")
    assert rules.address(at("tracker", AWAY)) == at("tracker", AWAY)
    assert refused_by(rules, at("tracker", APP)) is Code.REFUSED
    assert refused_by(rules, Atom("tracker")) is Code.REFUSED
    anywhere = policy("tracker@*@there")
    assert refused_by(anywhere, at("tracker", AWAY)) is Code.NO_CONNECTION
    there = policy("tracker@*@there", connected=(AWAY,))
    assert there.address(at("tracker", AWAY)) == at("tracker", AWAY)


@pytest.mark.parametrize(
    "name", ["rex", "net_kernel", "init", "code_server", "user", "Elixir.Code"]
)
def test_a_wildcard_reaches_nothing_that_obeys_messages(name: str) -> None:
    assert refused_by(policy("*", "*@*"), at(name, APP)) is Code.REFUSED
    assert policy(name).address(at(name, APP)) == at(name, APP)


def test_nor_anything_of_the_bridges_own_node() -> None:
    assert refused_by(policy("*"), Atom("worker_registry")) is Code.REFUSED
    assert policy("*").address(at("worker_registry", APP)) == at("worker_registry", APP)
    assert policy("worker_registry").address(Atom("worker_registry")) == at("worker_registry", OWN)


def test_pids_are_of_the_nodes_that_are_named() -> None:
    rules = policy(pids=("app@*",))
    assert rules.address(pid(APP)) == pid(APP)
    assert refused_by(rules, pid(AWAY)) is Code.REFUSED
    assert refused_by(rules, pid("app@there")) is Code.NO_CONNECTION
    assert policy(pids=(AWAY,)).address(pid(AWAY)) == pid(AWAY)


@given(st.text(alphabet="ab*.@", max_size=8), st.text(alphabet="ab.@", max_size=8))
def test_only_a_star_is_special_in_a_pattern(text: str, candidate: str) -> None:
    def like(text: str, candidate: str) -> bool:
        if not text:
            return not candidate
        if text[0] == "*":
            return any(like(text[1:], candidate[i:]) for i in range(len(candidate) + 1))
        return candidate[:1] == text[0] and like(text[1:], candidate[1:])

    assert pattern(text)(candidate) == like(text, candidate)


# ---- what is said


def may_say(term: Any, *, pids: tuple[str, ...] = (), budget: AtomBudget | None = None) -> bool:
    try:
        check_term(term, policy(pids=pids), budget or AtomBudget(()))
    except NotHad as error:
        return error.code is not Code.REFUSED
    return True


def test_data_may_be_said_however_it_is_nested() -> None:
    term = {b"k": [1, 2.5, (None, True, BitString(b"\xf0", 4))], 7: ImproperList((1,), Atom("ok"))}
    assert may_say(term)
    assert may_say(Map([([1], b"a list as a key")]))


@pytest.mark.parametrize(
    "identity", [pid(APP), Port(Atom(APP), 1, 1), Reference(Atom(APP), 1, (1, 2, 3))]
)
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [(1, x)], lambda x: {x: 1}, lambda x: {1: x}]
)
def test_an_identity_only_of_the_nodes_that_are_named(identity: Any, wrap: Any) -> None:
    assert not may_say(wrap(identity))
    assert may_say(wrap(identity), pids=(APP,))


def test_a_fun_never() -> None:
    assert not may_say([Export(Atom("os"), Atom("cmd"), 1)], pids=("*",))


def test_new_atoms_are_counted_once_and_bounded_for_life() -> None:
    budget = AtomBudget(["declared"], new_max=3)
    assert may_say([Atom("a"), Atom("a"), Atom("declared"), Atom("ok")], budget=budget)
    assert may_say([Atom("b"), Atom("c")], budget=budget)
    assert not may_say(Atom("d"), budget=budget)
    assert may_say([Atom("a"), Atom("b"), Atom("c")], budget=budget)
    too_many = AtomBudget([], new_max=3)
    assert not may_say([Atom(x) for x in "abcd"], budget=too_many)
    assert may_say([Atom(x) for x in "wxy"], budget=too_many)  # the refused ones cost nothing


# ---- the pace


def test_so_many_packets_a_second_with_a_burst_of_as_many() -> None:
    pace, now, waited = Pace(packets_per_s=100), 1000.0, 0.0
    for _ in range(100):
        assert pace.spend(now, 0) == 0
    for _ in range(400):
        rest = pace.spend(now, 0)
        now, waited = now + rest, waited + rest
    assert waited == pytest.approx(4.0, abs=0.05)
    now += 10
    for _ in range(100):
        assert pace.spend(now, 0) == 0
    assert pace.spend(now, 0) > 0


def test_a_tenth_of_the_thread_and_one_packet_counts_for_a_second_at_most() -> None:
    pace, now = Pace(packets_per_s=1e6), 0.0
    for _ in range(200):
        now += 0.01  # it is looked at for so long
        now += pace.spend(now, 0.01)
    assert now == pytest.approx(20 - BURST_S, rel=0.1)
    assert Pace(packets_per_s=1e6).spend(0, 1000.0) <= 1.0
