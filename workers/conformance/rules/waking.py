"""Waiting and waking: no wake-up is lost, none is needed while awake, a false one does no harm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.gate import WAY
from workers.conformance.jobs import CANCELLED, PART, Broke
from workers.conformance.language import milliseconds, parts
from workers.conformance.peer import Peer
from workers.conformance.trap import On, Trap, address_in

CHAPTER = Chapter("Waiting and waking")
IDLE_S = 0.3
FUTEX, EVENTFD, SIGNAL = layout.PARK_FUTEX, layout.PARK_EVENTFD, layout.PARK_SIGNAL


def await_parked(peer: Peer) -> int:
    """The way in which it waits when it has nothing to do."""
    peer.until(lambda: peer.gate.parked_way() != 0, "it never parks")
    return peer.gate.parked_way()


@dataclass(frozen=True)
class Activity:
    """Of all threads of a process: the time for which they ran and, ready to run, were let wait."""

    ran_s: float
    waited_s: float
    wants_cpu: bool  # one of them runs, or waits for it, at this moment


def activity(pid: int) -> Activity:
    """So far: proc(5), /proc/pid/schedstat and stat."""
    ran_ns, waited_ns, wants_cpu = 0, 0, False
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as schedstat:
            ran, waited, _ = map(int, schedstat.read().split())
        with open(f"/proc/{pid}/task/{task}/stat") as stat:
            wants_cpu |= stat.read().rpartition(")")[2].split()[0] == "R"
        ran_ns, waited_ns = ran_ns + ran, waited_ns + waited
    return Activity(ran_ns / 1e9, waited_ns / 1e9, wants_cpu)


def expect_asleep(peer: Peer) -> None:
    """Parked and with nothing to do, it leaves the CPU to others. On a busy machine one that spins
    gets little of it: then it is waited for, until it has had enough or does not want any.
    """
    await_parked(peer)
    before, begin_s = activity(peer.process.pid), time.monotonic()
    while True:
        time.sleep(IDLE_S)
        now, took_s = activity(peer.process.pid), time.monotonic() - begin_s
        ran_s, waited_s = now.ran_s - before.ran_s, now.waited_s - before.waited_s
        if ran_s > IDLE_S / 10:
            raise Broke(f"it used {ran_s:.3f} s of CPU in {took_s:.1f} s with nothing to do")
        if not now.wants_cpu and ran_s + waited_s < took_s / 2:
            return
        if took_s > peer.patience_s:
            raise Broke(f"it wanted the CPU for most of {took_s:.1f} s with nothing to do")


@CHAPTER.rule(101, "an idle worker sleeps")
def idle_sleeps(bench: Bench) -> None:
    peer = bench.start()
    peer.expect(peer.submit(language.ECHO, b"warm"))
    expect_asleep(peer)


def wake_often(peer: Peer, way: int | None = None) -> None:
    """Jobs with sleeps between: each parking is by `way`, and each job is answered."""
    for i in range(20):
        found = await_parked(peer)
        if way not in (None, found):
            raise Broke(f"it waits in way {found}, not {way}")
        peer.expect(peer.submit(language.ECHO, bytes([i])), payload=bytes([i]))


@CHAPTER.rule(102, "it is woken in the way that it announces")
def as_announced(bench: Bench) -> None:
    wake_often(bench.start())


@CHAPTER.rule(103, "where no futex is to be had it waits by the socket, and empties it")
def by_socket(bench: Bench) -> None:
    peer = bench.start(without_futex=True)
    wake_often(peer, EVENTFD)
    expect_asleep(peer)


@CHAPTER.rule(104, "where there is no socket either it waits for the signal")
def by_signal(bench: Bench) -> None:
    wake_often(bench.start(without_futex=True, bell=False), SIGNAL)


@contextmanager
def stopped_at_its_parking(
    peer: Peer, begin: Callable[[], object], begun: Callable[[], bool]
) -> Iterator[Trap]:
    """`begin` makes it work and wait again: it has announced that, and executed nothing since.

    Announcements that come before `begun` are those of an earlier wait.
    """
    park_at = layout.AT_POSITIONS + layout.WORKER_POSITIONS.at("park")
    trap = Trap(peer.process.pid, peer.patience_s)
    try:
        trap.watch(address_in(peer.process.pid, "worker-side", park_at), 4, On.STORE)
        begin()
        while True:
            trap.wait("it never stores its park word")
            if peer.gate.their_park.load() & WAY and begun():
                break
        yield trap
    finally:
        trap.release()


@contextmanager
def stopped_when_idle(peer: Peer) -> Iterator[Trap]:
    """It has answered a job, which is still to be taken, and found nothing more to do."""
    before = peer.completion_tail.load()
    with stopped_at_its_parking(
        peer,
        lambda: peer.submit(language.ECHO, b"and then park"),
        lambda: peer.completion_tail.load() > before,
    ) as trap:
        yield trap


def expect_second_look(peer: Peer) -> None:
    with stopped_when_idle(peer):
        # As if published just before the announcement, when nobody had to be woken.
        job = peer.put(language.ECHO, b"in between")
        peer.request_tail.store(peer.put_count)
    peer.take()
    peer.expect(job, payload=b"in between")


def expect_ring_before_the_sleep(peer: Peer) -> None:
    tail_at = layout.AT_POSITIONS + layout.RELAY_POSITIONS.at("request_tail")
    with stopped_when_idle(peer) as trap:
        trap.watch(address_in(peer.process.pid, "relay-side", tail_at), 8, On.ACCESS)
        trap.wait("it does not look at the position again after it has announced that it waits")
        job = peer.submit(language.ECHO, b"in between")
    peer.take()
    peer.expect(job, payload=b"in between")


@CHAPTER.rule(105, "it looks again after it has announced that it waits")
def second_look(bench: Bench) -> None:
    expect_second_look(bench.start())


@CHAPTER.rule(106, "a ring between its second look and its sleep is not lost")
def ring_before_the_sleep(bench: Bench) -> None:
    expect_ring_before_the_sleep(bench.start())


@CHAPTER.rule(107, "rings for nothing do no harm")
def spurious_rings(bench: Bench) -> None:
    peer = bench.start()
    for way in (FUTEX, EVENTFD, SIGNAL):
        for _ in range(40):
            peer.gate.ring_anyhow(way)
            time.sleep(0.0005)
        peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")
    job = peer.submit(language.SLEEP, milliseconds(50))
    peer.await_started(4)
    for _ in range(40):
        peer.gate.ring_anyhow(FUTEX)
    if peer.expect(job).run_ns < 50_000_000:
        raise Broke("a ring for nothing ended a sleep early")
    job = peer.submit(language.EMIT, parts(1, 5), flags=layout.FLAG_PARTS)
    peer.await_started(5)
    for _ in range(40):
        peer.gate.ring_anyhow(FUTEX)
    peer.silence(0.03)
    peer.demand(job, 1)
    peer.expect(job, PART)
    peer.expect(job)


@CHAPTER.rule(108, "each sleep is announced anew, as one announcement is rung for once")
def announced_anew(bench: Bench) -> None:
    peer = bench.start()
    for i in range(10):
        await_parked(peer)
        before = peer.gate.their_park.load()
        if not peer.gate.ring():  # for nothing
            raise Broke("a parking that was rung for already is announced again")
        expect_other_announcement(peer, before)
        time.sleep(0.002)
        peer.expect(peer.submit(language.ECHO, bytes([i])), payload=bytes([i]))


def expect_other_announcement(peer: Peer, before: int) -> None:
    peer.until(
        lambda: peer.gate.their_park.load() != before,
        "rung for nothing, it sleeps on under the same announcement",
    )


@CHAPTER.rule(109, "it rings as the bridge waits: by futex, by the eventfd")
def rings_the_bridge(bench: Bench) -> None:
    peer = bench.start()
    for way in (FUTEX, EVENTFD, FUTEX, EVENTFD):
        job = peer.submit(language.SLEEP, milliseconds(15))
        answer = peer.take(way=way)
        if answer.job != job:
            raise Broke(f"{answer} came for another job")


@CHAPTER.rule(110, "it rings once a parking, and not at all for a bridge that is awake")
def rings_once(bench: Bench) -> None:
    peer = bench.start()
    peer.gate.rings()
    for _ in range(5):
        peer.submit(language.SLEEP, milliseconds(1))
    peer.until(lambda: peer.completion_tail.load() == 5, "five jobs are not answered")
    if rings := peer.gate.rings():
        raise Broke(f"it rang {rings} times for a bridge that is awake")
    peer.gate.our_park.store(1000 << 2 | EVENTFD)  # and stays so
    for _ in range(5):
        peer.submit(language.SLEEP, milliseconds(1))
    peer.until(lambda: peer.completion_tail.load() == 10, "ten jobs are not answered")
    time.sleep(0.01)
    if (rings := peer.gate.rings()) != 1:
        raise Broke(f"it rang {rings} times for one parking")


@contextmanager
def stopped_without_demand(peer: Peer) -> Iterator[int]:
    """A handler has announced that it waits for demand. Yields its job."""
    jobs: list[int] = []
    with stopped_at_its_parking(
        peer,
        lambda: jobs.append(peer.submit(language.EMIT, parts(1, 5), flags=layout.FLAG_PARTS)),
        lambda: peer.started.load() == 1,
    ):
        yield jobs[0]


@CHAPTER.rule(131, "a handler that waits for demand looks again after it has announced that")
def second_look_for_demand(bench: Bench) -> None:
    peer = bench.start()
    with stopped_without_demand(peer) as job:
        peer.demand(job, 1, ring=False)
    peer.expect(job, PART)
    peer.expect(job)


@CHAPTER.rule(132, "and looks for a cancel as well")
def second_look_for_a_cancel(bench: Bench) -> None:
    peer = bench.start()
    with stopped_without_demand(peer) as job:
        peer.cancel(job, ring=False)
    peer.expect(job, CANCELLED)
