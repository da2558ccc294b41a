"""The links between workers that there are: granted by policy, ended by who may, all of it told.

The bridge makes a link, a pair of connected sockets, and gives each worker one end. It keeps a
descriptor of one end for itself, through which it can shut the pair down: that ends the link for
both workers, whatever they do, and whoever else holds their descriptors.

No link is granted that would close a ring: a worker waits for its peer, and peers that wait for
each other in a ring would wait for ever.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from bridge.config import PeerSettings
from bridge.workers.channel import packets
from bridge.workers.channel.packets import Code, NotHad, Outgoing
from bridge.workers.channel.policy import pattern

AUDIT_MAX = 256  # events that are kept to be looked at; the log has all of them
ASKED_PER_S = 50.0  # of one worker, in bursts of as many: each is a line in the log


@dataclass(slots=True, eq=False)
class Link:
    """One link. `asker` opened it; `server` answers."""

    id: int
    asker: Member
    server: Member
    since_s: float  # CLOCK_REALTIME
    hold: socket.socket


@dataclass(slots=True, frozen=True)
class Event:
    """A grant, a refusal or an end, as the audit has it."""

    at_s: float  # CLOCK_REALTIME
    what: str  # granted, refused, ended
    asker: int
    role: str  # that was asked for
    server: int | None
    link: int | None
    why: str | None


@dataclass(slots=True, eq=False)
class Member:
    """One life of a worker, as its channel knows it: bridge/workers/channel."""

    worker: int
    role: str
    settings: Callable[[], PeerSettings]
    send: Callable[[Outgoing], None]
    links: Links
    serves: bool = False
    asked: set[Link] = field(default_factory=set)
    serving: set[Link] = field(default_factory=set)
    _full_at_s: float = 0.0  # when its bucket of requests is full again

    def may_ask(self, now_s: float) -> bool:
        """Is it within ASKED_PER_S? Counts one if so."""
        if self._full_at_s - now_s >= 1.0:
            return False
        self._full_at_s = max(self._full_at_s, now_s) + 1 / ASKED_PER_S
        return True

    def serve(self) -> None:
        """It answers others from now on."""
        self.serves = True

    def open(self, role: str) -> tuple[int, int]:
        """A link to a worker of `role`: its number, and the descriptor for the one that asked, now
        the caller's. Raises NotHad.
        """
        return self.links.open(self, role)

    def close(self, number: int) -> None:
        """It gives a link back, at either end; one that is gone already is nothing."""
        link = self.links.find(number)
        if link is not None and self in (link.asker, link.server):
            self.links.end(link, "closed")

    def over(self) -> None:
        """The worker has ended."""
        self.links.leave(self)


class Links:
    """All of them. `now_s`: a clock for the pace of askers."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._members: dict[int, Member] = {}
        self._links: dict[int, Link] = {}
        self._last = 0
        self.audit: deque[Event] = deque(maxlen=AUDIT_MAX)
        self.counts: Counter[str] = Counter()
        self._log = structlog.get_logger("ringbridge.links")

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def find(self, number: int) -> Link | None:
        return self._links.get(number)

    def join(
        self,
        worker: int,
        role: str,
        settings: Callable[[], PeerSettings],
        send: Callable[[Outgoing], None],
    ) -> Member:
        """A life of a worker begins. `send` gives it a packet, and owns its descriptor then; it
        raises NotHad where too much waits for the worker.
        """
        member = self._members[worker] = Member(worker, role, settings, send, self)
        return member

    def leave(self, member: Member) -> None:
        self._members.pop(member.worker, None)
        for link in [*member.asked, *member.serving]:
            self.end(link, f"worker {member.worker} has ended")

    # ---- grants and refusals

    def open(self, asker: Member, role: str) -> tuple[int, int]:
        """See Member.open."""
        if not asker.may_ask(self._now_s()):
            self.counts["held_back"] += 1
            raise NotHad(Code.BUSY)
        try:
            server = self._choose(asker, role)
            return self._grant(asker, server, role)
        except NotHad as refused:
            detail = refused.detail if isinstance(refused.detail, str) else refused.code.name
            self._tell("refused", asker, role, None, None, detail.lower())
            raise

    def _choose(self, asker: Member, role: str) -> Member:
        if not allows(asker.settings(), role):
            raise NotHad(Code.REFUSED, "its role may not ask that one ([roles.*.peers] allow)")
        if len(asker.asked) >= asker.settings().links_max:
            raise NotHad(Code.BUSY)
        serving = [m for m in self._members.values() if m.role == role and m.serves]
        if not serving:
            raise NotHad(Code.NO_PROCESS)
        outside = [m for m in serving if not _reaches(m, asker)]
        if not outside:
            raise NotHad(Code.REFUSED, "its workers wait for the one that asks: it would be a ring")
        free = [m for m in outside if len(m.serving) < m.settings().served_max]
        if not free:
            raise NotHad(Code.BUSY)
        return min(free, key=lambda m: (len(m.serving), m.worker))

    def _grant(self, asker: Member, server: Member, role: str) -> tuple[int, int]:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as none:
            raise NotHad(Code.BUSY) from none
        try:
            given = os.dup(ours.fileno())
        except OSError as none:
            ours.close()
            theirs.close()
            raise NotHad(Code.BUSY) from none
        self._last += 1
        link = Link(self._last, asker, server, time.time(), ours)
        self._links[link.id] = link
        asker.asked.add(link)
        server.serving.add(link)
        self._tell("granted", asker, role, server, link, None)
        try:
            server.send(packets.peer_offer(link.id, asker.role, theirs.detach()))
        except NotHad:  # each offer that it has not read holds a descriptor of ours
            os.close(given)
            self.end(link, "its server does not read what it is told")
            raise
        return link.id, given

    # ---- ends

    def end(self, link: Link, why: str) -> None:
        """Shut it down for both. Once."""
        if self._links.pop(link.id, None) is None:
            return
        link.asker.asked.discard(link)
        link.server.serving.discard(link)
        with suppress(OSError):  # both ends are closed already
            link.hold.shutdown(socket.SHUT_RDWR)
        link.hold.close()
        self._tell("ended", link.asker, link.server.role, link.server, link, why)

    def review(self) -> None:
        """The settings have changed: end what they would not grant any more."""
        for link in list(self._links.values()):
            if not allows(link.asker.settings(), link.server.role):
                self.end(link, "its role's policy has changed")

    def end_all(self, why: str) -> None:
        for link in list(self._links.values()):
            self.end(link, why)

    def _tell(
        self,
        what: str,
        asker: Member,
        role: str,
        server: Member | None,
        link: Link | None,
        why: str | None,
    ) -> None:
        number = link.id if link else None
        event = Event(
            time.time(), what, asker.worker, role, server.worker if server else None, number, why
        )
        self.audit.append(event)
        self.counts[what] += 1
        say = self._log.warning if what == "refused" else self._log.info
        say(
            f"link {what}",
            link=number,
            worker=event.asker,
            role=asker.role,
            peer=event.server,
            peer_role=role,
            why=why,
        )


def allows(settings: PeerSettings, role: str) -> bool:
    return any(pattern(text)(role) for text in settings.allow)


def _reaches(start: Member, end: Member) -> bool:
    """Does `start` wait for `end`, itself or through others? Everybody waits for himself."""
    seen, waiting = {start}, [start]
    while waiting:
        member = waiting.pop()
        if member is end:
            return True
        new = {link.server for link in member.asked} - seen
        seen |= new
        waiting += new
    return False
