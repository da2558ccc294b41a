"""One process's links: dist-protocol.md, 5.3, rule by rule."""

from __future__ import annotations

import pytest

from bridge.etf import Atom, Pid
from bridge.node.signals.links import LinkIndex, Links

OWN = Pid(Atom("us@h"), 1, 0, 7)
OTHER = Pid(Atom("you@h"), 1, 0, 5)


def new_links() -> Links:
    return Links(OWN, LinkIndex())


def test_a_link_is_sent_once() -> None:
    links = new_links()
    assert links.link(OTHER)
    assert not links.link(OTHER)
    assert list(links.active()) == [OTHER]


def test_an_exit_over_an_active_link_is_delivered_once() -> None:
    links = new_links()
    links.receive_link(OTHER)
    assert links.receive_exit(OTHER)
    assert not links.receive_exit(OTHER)


def test_an_exit_after_our_unlink_is_not_delivered_and_ends_the_wait() -> None:
    links = new_links()
    links.link(OTHER)
    assert links.unlink(OTHER) == 1
    assert list(links.active()) == []
    assert not links.receive_exit(OTHER)
    assert len(links) == 0


def test_only_the_right_acknowledgement_ends_an_unlink() -> None:
    links = new_links()
    links.link(OTHER)
    assert links.unlink(OTHER) == 1
    links.receive_unlink_ack(OTHER, 2)
    assert len(links) == 1
    links.receive_unlink_ack(OTHER, 1)
    assert len(links) == 0


def test_a_new_link_overtakes_an_unlink_on_its_way() -> None:
    links = new_links()
    links.link(OTHER)
    links.unlink(OTHER)
    assert links.link(OTHER), "the peer has to be told"
    links.receive_unlink_ack(OTHER, 1)
    assert list(links.active()) == [OTHER]
    assert links.unlink(OTHER) == 2, "ids are not used again while one may be outstanding"


def test_a_link_from_outside_does_not_undo_our_unlink() -> None:
    links = new_links()
    links.link(OTHER)
    links.unlink(OTHER)
    links.receive_link(OTHER)
    assert list(links.active()) == []


def test_an_unlink_from_outside_removes_an_active_link_only() -> None:
    links = new_links()
    links.link(OTHER)
    links.receive_unlink(OTHER)
    assert len(links) == 0
    links.link(OTHER)
    links.unlink(OTHER)
    links.receive_unlink(OTHER)
    assert len(links) == 1, "our own unlink still waits for its acknowledgement"


def test_there_is_nothing_to_unlink_without_a_link() -> None:
    assert new_links().unlink(OTHER) is None


@pytest.mark.parametrize("unlinked", [False, True])
def test_a_lost_node_takes_its_links_along(unlinked: bool) -> None:
    links = new_links()
    links.link(OTHER)
    links.link(Pid(Atom("third@h"), 1, 0, 5))
    if unlinked:
        links.unlink(OTHER)
    assert links.take_all_of("you@h") == ([] if unlinked else [OTHER])
    assert len(links) == 1
