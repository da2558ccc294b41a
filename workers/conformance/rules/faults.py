"""A bridge that breaks a rule of the link: the worker leaves with 76 and says which."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import Broke
from workers.conformance.language import large, noise
from workers.conformance.peer import Peer

CHAPTER = Chapter("A bridge that breaks a rule")
PROTOCOL = 76


def expect_broken(bench: Bench, fault: Callable[[Peer], None], started: int = 0) -> None:
    """The fault ends it with 76, a word on stderr, and no further handler entered."""
    peer = bench.start()
    fault(peer)
    peer.expect_exit(PROTOCOL)
    if not peer.process.stderr.strip():
        raise Broke("it left with 76 and did not say why on stderr")
    if peer.started.load() > started:
        raise Broke(f"`started` is {peer.started.load()}: a handler saw what is broken")


@CHAPTER.rule(81, "a request whose envelope does not fit its CRC")
def envelope_crc(bench: Bench) -> None:
    expect_broken(bench, lambda peer: publish(peer, noise(10), {"priority": 1}))
    expect_broken(bench, lambda peer: publish(peer, noise(10), {"crc": 0}))


def publish(peer: Peer, payload: bytes, spoil: dict[str, int | bytes]) -> None:
    peer.put(language.ECHO, payload, spoil=spoil)
    peer.publish()


@CHAPTER.rule(82, "a request whose payload does not fit its CRC, inline and in the pool")
def payload_crc(bench: Bench) -> None:
    expect_broken(bench, lambda peer: publish(peer, noise(10), {"body": noise(10, 2)}))

    def flip_in_the_pool(peer: Peer) -> None:
        peer.put(language.ECHO, noise(1000))
        assert peer.link.pool is not None
        peer.link.pool.write(999, bytes([noise(1000)[999] ^ 1]))
        peer.publish()

    expect_broken(bench, flip_in_the_pool)


@CHAPTER.rule(83, "a payload that reaches outside the pool, or past the envelope")
def payload_outside(bench: Bench) -> None:
    end_of_pool = (4 << 20) - 999
    for at in (end_of_pool, 1 << 63, 2**64 - 8):
        spoil: dict[str, int | bytes] = {"payload_at": at}
        expect_broken(bench, partial(publish, payload=noise(1000), spoil=spoil))
    expect_broken(bench, lambda peer: publish(peer, noise(10), {"payload_bytes": 65}))
    expect_broken(bench, lambda peer: publish(peer, noise(1000), {"payload_bytes": 2**32 - 1}))


@CHAPTER.rule(84, "a request position that runs too far ahead, or backwards")
def request_position(bench: Bench) -> None:
    def too_far(peer: Peer) -> None:
        peer.request_tail.store(peer.plan.slots + 1)
        peer.gate.ring()

    def backwards(peer: Peer) -> None:
        peer.expect(peer.submit(language.ECHO, b"fine"))
        peer.request_tail.store(0)
        peer.gate.ring()

    expect_broken(bench, too_far)
    expect_broken(bench, backwards, started=1)


@CHAPTER.rule(85, "blocks given back that are not taken, or lie outside the region")
def givebacks(bench: Bench) -> None:
    for first, count in ((5, 1), (0, 2), (255, 2), (2**32 - 1, 1), (1, 2**32 - 1)):

        def give(peer: Peer, first: int = first, count: int = count) -> None:
            # One block is taken: the first. Then a job, so that the worker looks.
            peer.expect(peer.submit(language.LARGE, large(100)), keep=True)
            peer.put_giveback(first, count)
            peer.giveback_tail.store(peer.given_count)
            peer.submit(language.LARGE, large(100))

        expect_broken(bench, give, started=1)


@CHAPTER.rule(86, "a give-back position that runs too far ahead")
def giveback_position(bench: Bench) -> None:
    def too_far(peer: Peer) -> None:
        peer.giveback_tail.store(peer.link.blocks + 1)
        peer.submit(language.LARGE, large(100))

    expect_broken(bench, too_far, started=1)


@CHAPTER.rule(87, "a completion position past what was published")
def completion_position(bench: Bench) -> None:
    def ahead(peer: Peer) -> None:
        peer.completion_head.store(1 << 40)
        # Answers that nobody takes: when its ring is full, it has to look for room.
        for count in (peer.plan.slots, 1):
            try:
                for _ in range(count):
                    peer.put(language.ECHO, b"x")
            except Broke:
                if not peer.process.has_ended():  # one that has found out sooner frees no slots
                    raise
            peer.publish()

    expect_broken(bench, ahead, started=10**9)
