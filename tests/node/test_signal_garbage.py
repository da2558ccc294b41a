"""Whatever a peer with the cookie sends, the node's one event task goes on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from router_support import PEER, YOU
from test_node_signals import ListCarrier

from bridge.dist.cookie import Cookie
from bridge.dist.flags import OFFERED
from bridge.dist.handshake_events import Identity
from bridge.etf import Atom, ImproperList, Pid, Record, Reference, encode_bare
from bridge.node import Node
from bridge.node.cluster.peers import Connection

US = Atom("us@h")
own_pids = st.builds(lambda number: Pid(US, number, 0, 7), st.integers(1, 5))
pids = st.one_of(own_pids, st.just(YOU), st.just(Pid(YOU.node, 2, 3, 1)), st.just(Pid(US, 1, 0, 6)))
refs = st.builds(
    lambda node, number: Reference(node, 7 if node == US else YOU.creation, (number, 0, 0)),
    st.sampled_from([US, YOU.node]),
    st.integers(1, 4),
)
names = st.sampled_from([Atom("net_kernel"), Atom("relayed"), Atom("nobody"), None])
tokens = st.just((0, 0, 0, YOU, 0))
odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, [], 0, 2**70, Atom("kill"), Atom("normal"), Record(US, US, 0, (), ()), {}, b"x", 1.5]
)
tags = st.one_of(refs, odd, refs.map(lambda ref: ImproperList((Atom("alias"),), ref)))
messages = st.one_of(
    odd,
    st.tuples(
        st.just(Atom("$gen_call")), st.tuples(pids, tags), st.tuples(st.just(Atom("is_auth")), odd)
    ),
    st.tuples(st.just(Atom("$gen_call")), odd, odd),
    st.tuples(
        st.just(Atom("system")),
        st.tuples(pids, tags),
        st.one_of(
            odd,
            st.sampled_from(
                [Atom("get_state"), Atom("get_status"), Atom("suspend"), Atom("resume")]
            ),
            st.tuples(st.just(Atom("terminate")), odd),
        ),
    ),
    st.tuples(tags, odd),
)
ids = st.integers(0, 3)
controls = st.one_of(
    st.tuples(st.sampled_from([1, 4, 24, 26, 22]), pids, pids),
    st.tuples(st.just(2), st.just(Atom("")), pids),
    st.tuples(st.sampled_from([3, 8]), pids, pids, odd),
    st.tuples(st.just(6), pids, st.just(Atom("")), names),
    st.tuples(st.sampled_from([19, 20]), pids, st.one_of(pids, names), refs),
    st.tuples(st.just(21), pids, pids, refs, odd),
    st.tuples(st.just(28), st.one_of(pids, names), pids, refs),
    st.tuples(st.just(29), refs, pids, pids, st.just((US, US, 0)), st.just([])),
    st.tuples(st.just(31), refs, pids, ids, pids),
    st.tuples(st.just(33), pids, refs),
    st.tuples(st.sampled_from([35, 36]), ids, pids, pids),
    st.tuples(st.just(37), st.integers(0, 31), pids, st.one_of(pids, refs, names), tokens),
    st.tuples(st.integers(0, 40), odd, odd),
)
signals = st.lists(
    st.tuples(controls, st.one_of(st.none(), messages, st.binary(max_size=4))), max_size=8
)


@given(signals=signals)
def test_the_node_takes_any_sequence_of_signals(signals: list[tuple[Any, Any]]) -> None:
    carrier = ListCarrier()
    # No task is started here, so no nursery is needed.
    node = Node(Identity(US.name, 7), Cookie("cookie"), carrier, nursery=None)  # type: ignore[arg-type]
    node.add_relay_service(["relayed"], module="relayed")
    for conn, (control, message) in enumerate(signals):
        if node.connections.peers.connection_of(PEER) is None:
            node.connections.peers.up(Connection(conn, PEER, OFFERED, YOU.creation))
        [connection] = node.connections.peers
        payload = message if isinstance(message, bytes) else None
        if message is not None and payload is None:
            payload = encode_bare(message, record_ok=True)
        node.handle_signal(connection.id, encode_bare(control, record_ok=True), payload)
    for connection in node.connections.peers:
        node.handle_connection_lost(connection.id, "closed_by_peer")
    assert node.statistics().monitors_on_us == 0
    assert node.connected() == []
