"""Room: the result region and its give-backs, the completion ring when it is full."""

from __future__ import annotations

import random
import time

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import CANCELLED, CODE_TOO_LARGE, FAILED, OK, PROGRESS, Answer, Broke
from workers.conformance.language import large, large_answer, noise, parts

CHAPTER = Chapter("Room")
REGION = 64 << 10
BLOCK = 4096


@CHAPTER.rule(31, "answers of every size up to the whole region come whole")
def up_to_the_region(bench: Bench) -> None:
    peer = bench.start(result_bytes=REGION)
    for size in (64, 65, BLOCK - 1, BLOCK, BLOCK + 1, REGION - 1, REGION, 1):
        job = peer.submit(language.LARGE, large(size, size % 256))
        peer.expect(job, payload=large_answer(size, size % 256))


@CHAPTER.rule(32, "an answer that can never fit has failed its job with code 65280")
def too_large(bench: Bench) -> None:
    peer = bench.start(result_bytes=REGION)
    for size in (REGION + 1, 1 << 32, (1 << 32) + 10, 1 << 40):
        peer.expect(peer.submit(language.LARGE, large(size)), FAILED, code=CODE_TOO_LARGE)
    peer.expect(peer.submit(language.LARGE, large(REGION)), payload=large_answer(REGION))


@CHAPTER.rule(
    33, "a full region holds the worker until blocks are given back, and none is used twice"
)
def full_region(bench: Bench) -> None:
    peer = bench.start(result_bytes=REGION)
    size, fits, total = 16_000, 4, 15
    jobs = [peer.put(language.LARGE, large(size, i)) for i in range(total)]
    peer.publish()
    held: list[Answer] = []
    for i, job in enumerate(jobs):
        if i == fits:
            peer.silence()
        if i >= fits:
            peer.give_back(held[i - fits])
        held.append(peer.expect(job, payload=large_answer(size, i), keep=True))


@CHAPTER.rule(34, "blocks come back in any order and over many laps of the give-back ring")
def givebacks_in_any_order(bench: Bench) -> None:
    peer = bench.start(result_bytes=REGION)
    dice = random.Random(34)
    held: list[Answer] = []
    for i in range(150):
        size = dice.choice((65, BLOCK, BLOCK + 1, 3 * BLOCK))
        while peer.results.blocks_for(size) > peer.results.blocks - peer.results.taken or (
            held and dice.random() < 0.5
        ):
            peer.give_back(held.pop(dice.randrange(len(held))))
        job = peer.submit(language.LARGE, large(size, i))
        answer = peer.poll(0.05)
        while answer is None and held:  # free, but in pieces
            peer.give_back(held.pop(dice.randrange(len(held))))
            answer = peer.poll(0.05)
        if answer is None:
            answer = peer.take()
        if answer.job != job or answer.payload != large_answer(size, i % 256):
            raise Broke(f"answer {i} is {answer}, not its {size} bytes")
        held.append(answer)
    for answer in held:
        peer.give_back(answer)
    peer.expect(peer.submit(language.LARGE, large(REGION)), payload=large_answer(REGION))


@CHAPTER.rule(35, "only the blocks that an answer fills stay taken")
def blocks_are_counted_by_size(bench: Bench) -> None:
    # As many answers as there are blocks, none given back: each may have one.
    peer = bench.start(result_bytes=REGION)
    count = REGION // BLOCK
    jobs = [peer.put(language.LARGE, large(BLOCK, i)) for i in range(count)]
    peer.publish()
    for i, job in enumerate(jobs):
        peer.expect(job, payload=large_answer(BLOCK, i), keep=True)


@CHAPTER.rule(36, "a job that waits for room can be cancelled, and takes nothing along")
def waiting_for_room_is_cancelled(bench: Bench) -> None:
    peer = bench.start(result_bytes=REGION)
    held = peer.expect(peer.submit(language.LARGE, large(REGION)), keep=True)
    job = peer.submit(language.LARGE, large(BLOCK))
    peer.await_started(2)
    peer.silence()
    peer.cancel(job)
    peer.expect(job, CANCELLED)
    peer.give_back(held)
    peer.expect(peer.submit(language.LARGE, large(REGION, 3)), payload=large_answer(REGION, 3))


@CHAPTER.rule(37, "a full completion ring holds the worker, and nothing in it is overwritten")
def full_completion_ring(bench: Bench) -> None:
    peer = bench.start(slots=8)
    jobs = [peer.put(language.ECHO, noise(8, i)) for i in range(8)]
    peer.publish()
    for i in range(8, 16):  # a slot is free again as soon as its job is answered
        jobs.append(peer.put(language.ECHO, noise(8, i)))
        peer.publish()
    peer.until(lambda: peer.completion_tail.load() == 8, "the completion ring is not filled")
    time.sleep(0.03)  # for one that does not wait
    if (tail := peer.completion_tail.load()) != 8:
        raise Broke(f"completion_tail is {tail} with a ring of 8 and none taken")
    for i, job in enumerate(jobs):
        peer.expect(job, payload=noise(8, i))


@CHAPTER.rule(38, "progress that finds no room is dropped; the job goes on")
def progress_never_waits(bench: Bench) -> None:
    peer = bench.start(slots=4, result_bytes=16_384)
    job = peer.submit(language.REPORT, parts(300, 4096), flags=layout.FLAG_PROGRESS)
    # Nothing is taken until the ring is full, so that some of it has to go.
    peer.until(lambda: peer.completion_tail.load() >= 4, "the completion ring is not filled")
    seen = 0
    while (answer := peer.take()).status == PROGRESS:
        seen += 1
        peer.give_back(answer)
    kept = int.from_bytes(answer.payload, "little")
    if answer.job != job or answer.status != OK or kept != seen:
        raise Broke(f"{seen} reports came; the handler was told of {kept}: {answer}")
    if seen == 300:
        raise Broke("300 reports found room in a ring of 4")
