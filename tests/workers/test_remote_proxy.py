"""The worker's end of a link that the bridge plays, beside a relay's end that is the test's."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from bridge.fabric import layout
from bridge.fabric.limits import LinkFds
from bridge.fabric.proxy import Proxy
from workers.conformance.crc32c import crc32c
from workers.conformance.link import Link, LinkPlan, pack

AT = layout.AT_POSITIONS


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link(LinkPlan(channel=False))
    yield link
    link.close()


@pytest.fixture
def proxy(link: Link) -> Iterator[Proxy]:
    fds = link.inherited
    proxy = Proxy(
        LinkFds(
            fds[layout.FD_RELAY_SIDE],
            fds[layout.FD_WORKER_SIDE],
            fds[layout.FD_POOL],
            fds[layout.FD_WAKE_WORKER],
            link.wake_relay,
        )
    )
    yield proxy
    proxy.close()


def give_what_is_broken(link: Link) -> None:
    """A payload whose place is another job's by now: its sum is wrong."""
    request = {"job": 1, "crc": 7, "payload_at": 0, "payload_bytes": 9}
    link.relay.write(link.parts.requests_at, pack(layout.REQUEST, request))
    link.relay.word(AT + layout.RELAY_POSITIONS.at("request_tail")).store(1)


def let_go(link: Link) -> None:
    link.relay.word(AT + layout.RELAY_POSITIONS.at("control"), 32).store(layout.CONTROL_STOP)


def test_a_payload_that_is_not_what_was_sent_breaks_the_link(link: Link, proxy: Proxy) -> None:
    give_what_is_broken(link)
    with pytest.raises(OSError, match="broken") as broken:
        proxy.take()
    assert broken.value.errno == errno.EPROTO


def test_what_the_relay_has_let_go_of_is_neither_taken_nor_broken(link: Link, proxy: Proxy) -> None:
    give_what_is_broken(link)
    let_go(link)
    assert proxy.take() is None


def test_nor_is_one_taken_that_was_read_whole(link: Link, proxy: Proxy) -> None:
    request = {"job": 1, "payload_bytes": 0, "flags": layout.FLAG_INLINE}
    raw = bytearray(pack(layout.REQUEST, request))
    raw[8:12] = crc32c(0, bytes(raw[:64])).to_bytes(4, "little")
    link.relay.write(link.parts.requests_at, bytes(raw))
    link.relay.word(AT + layout.RELAY_POSITIONS.at("request_tail")).store(1)
    let_go(link)
    assert proxy.take() is None
