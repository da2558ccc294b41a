"""The rules of a worker over messages, from 201 on (docs/workers-conformance.md)."""

from __future__ import annotations

import signal
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from bridge.etf import Atom, decode_bare
from bridge.fabric import layout
from bridge.workers.remote import messages
from bridge.workers.remote.messages import Began, Ended, Leave, Said
from workers.conformance import language
from workers.conformance.jobs import (
    CODE_BAD_PAYLOAD,
    CODE_KIT,
    CODE_NO_ANSWER,
    CODE_UNKNOWN_OPCODE,
    Broke,
)
from workers.conformance.language import end, fail, milliseconds, noise
from workers.conformance.messages.stage import ANSWER_BYTES_MAX, HEARTBEAT_MS, Stage

FAILED, CANCELLED = layout.STATUS_FAILED, layout.STATUS_CANCELLED
LONG = milliseconds(60_000)


@dataclass(frozen=True)
class Rule:
    """One rule: a number that never changes, what it says, and how it is tried."""

    number: int
    title: str
    chapter: str
    attempt: Callable[[Stage], Awaitable[None]]


RULES: list[Rule] = []
Attempt = Callable[[Stage], Awaitable[None]]


def rule(number: int, title: str) -> Callable[[Attempt], Attempt]:
    def register(attempt: Attempt) -> Attempt:
        RULES.append(Rule(number, title, "Over messages", attempt))
        return attempt

    return register


# ---- hello


@rule(201, "the hello has all its keys, and its process is of the node that it comes from")
async def hello_is_whole(stage: Stage) -> None:
    message = await stage.hello()
    hello = messages.read_hello(message)
    if hello.role != "conformance" or hello.pid.node.name == stage.node.name:
        raise Broke(f"role {hello.role}, pid {hello.pid}")


@rule(202, "a refusal for now is followed by another hello, with another ref")
async def refused_for_now(stage: Stage) -> None:
    first = await stage.hello()
    stage.refuse(first, "full", again=True)
    second = await stage.hello()
    if messages.answerable(first) == messages.answerable(second):
        raise Broke("the second hello has the ref of the first one")
    await stage.greeted(second)


@rule(203, "a refusal for good, of its version above all, is followed by none")
async def refused_for_good(stage: Stage) -> None:
    stage.refuse(await stage.hello(), "version", again=False)
    await stage.no_hello()
    stage.kill()


# ---- serving


@rule(204, "payloads of every size come back, raw as raw and terms as terms")
async def every_size(stage: Stage) -> None:
    talk = await stage.greeted()
    for size in (0, 1, 64, 65, 4096, 300_000):
        await talk.run(language.ECHO, noise(size), expect=noise(size))
        term = b"m" + struct.pack(">I", size) + noise(size)
        await talk.run(language.ECHO, term, is_term=True, expect=term, as_term=True)


@rule(205, "a slot's jobs are begun before they end, in order, once each")
async def in_order(stage: Stage) -> None:
    talk = await stage.greeted()
    count = min(talk.hello.credit, 16)
    for _ in range(10):
        jobs = [talk.give(language.ECHO, noise(8, n)) for n in range(count)]
        for n, job in enumerate(jobs):
            await talk.began(job)
            await talk.ended(job, payload=noise(8, n))
    await talk.silence()


@rule(206, "slots do not wait for each other")
async def slots_at_once(stage: Stage) -> None:
    talk = await stage.greeted()
    slots = range(talk.hello.slots)
    jobs = [talk.give(language.SLEEP, milliseconds(200), slot=slot) for slot in slots]
    for _ in jobs:
        if not isinstance(said := await talk.said(), Began):
            raise Broke(f"not all slots have begun, and it said {said}")
    for _ in jobs:
        if not isinstance(said := await talk.said(), Ended):
            raise Broke(f"an end was to come, and it said {said}")


@rule(207, "a failure carries its code and its message; so does what is not served")
async def failures(stage: Stage) -> None:
    talk = await stage.greeted()
    for code, message in ((0, b""), (7, b"seven"), (65_279, 1024 * b"m")):
        job = talk.give(language.FAIL, fail(code, message))
        await talk.began(job)
        await talk.ended(job, FAILED, message, code=code)
    for opcode, payload, code in (
        (60_000, b"", CODE_UNKNOWN_OPCODE),
        (language.FAIL, b"x", CODE_BAD_PAYLOAD),
    ):
        job = talk.give(opcode, payload)
        await talk.began(job)
        await talk.ended(job, FAILED, code=code)


@rule(208, "an answer up to the bound comes whole; one above it has failed its job with 65280")
async def bounds(stage: Stage) -> None:
    talk = await stage.greeted()
    whole = language.large_answer(ANSWER_BYTES_MAX, 3)
    await talk.run(language.LARGE, language.large(ANSWER_BYTES_MAX, 3), expect=whole)
    job = talk.give(language.LARGE, language.large(ANSWER_BYTES_MAX + 1))
    await talk.began(job)
    await talk.ended(job, FAILED, code=CODE_KIT)


@rule(209, "a handler without an answer has failed its job; so has one that collapses, or it ends")
async def no_answer(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.END, end(language.NO_ANSWER))
    await talk.began(job)
    await talk.ended(job, FAILED, code=CODE_NO_ANSWER)
    job = talk.give(language.END, end(language.COLLAPSE))
    await talk.began(job)
    said = await talk.next()
    if said is None:
        await stage.gone()
    elif not isinstance(said, Ended) or said.status != FAILED or said.code < CODE_KIT:
        raise Broke(f"after a collapse it said {said}")
    else:
        await talk.run(language.ECHO, b"goes on", expect=b"goes on")


@rule(210, "a term answers as a term")
async def term_answer(stage: Stage) -> None:
    talk = await stage.greeted()
    given = b"h\x02a\x01a\x02"
    said = await talk.run(language.TERM, given, is_term=True, as_term=True)
    answered, _ = decode_bare(said.payload.data)
    if answered != (Atom("ok"), (1, 2)):
        raise Broke(f"the answer is {answered!r}")


@rule(211, "a handler is told its job's number, wishes and trace, and that it has a deadline")
async def about(stage: Stage) -> None:
    talk = await stage.greeted()
    trace = b"00-000102030405060708090a0b0c0d0e0f-0001020304050607-01"
    said = await talk.run(language.ABOUT, parts=5, progress=True, deadline_ms=60_000, trace=trace)
    job, deadline, demand, wants, trace_id, span, flags = struct.unpack(
        "<QQIB16s8sB", said.payload.data
    )
    if (job, demand, wants, flags) != (said.job, 5, 3, 1) or not deadline:
        raise Broke(f"job {job}, deadline {deadline}, demand {demand}, wishes {wants}")
    if (trace_id, span) != (bytes(range(16)), bytes(range(8))):
        raise Broke(f"trace {trace_id.hex()} {span.hex()}")


# ---- parts and progress


@rule(212, "parts come as far as they are asked for, whole, raw and as terms")
async def parts(stage: Stage) -> None:
    talk = await stage.greeted()
    for as_term in (False, True):
        job = talk.give(language.EMIT, language.parts(6, 100, as_term=as_term), parts=2)
        await talk.began(job)
        for number in range(6):
            if number in (2, 4):
                await talk.silence(0.05)
                talk.demand(job, number + 2)
            said = await talk.said()
            wanted = language.part(number, 100, as_term=as_term)
            if not isinstance(said, Said) or said.payload.data != wanted:
                raise Broke(f"part {number} was to come, and it said {said}")
        await talk.ended(job, payload=b"")


@rule(213, "progress is told where it is wanted, and nowhere else")
async def progress(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.REPORT, language.parts(4, 50), progress=True)
    await talk.began(job)
    for number in range(4):
        said = await talk.said()
        if not isinstance(said, Said) or said.payload.data != language.part(number, 50):
            raise Broke(f"report {number} was to come, and it said {said}")
    await talk.ended(job)
    job = talk.give(language.REPORT, language.parts(4, 50))
    await talk.began(job)
    said_all = [await talk.said()]
    while isinstance(said_all[-1], messages.Pulse):
        said_all.append(await talk.said())
    if not isinstance(said_all[-1], Ended):
        raise Broke(f"of progress that nobody wants it said {said_all[-1]}")


# ---- ends


@rule(214, "a job that is cancelled ends, with one word and none after it")
async def cancel(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.SLEEP, LONG)
    await talk.began(job)
    talk.tell("cancel", job=job)
    await talk.ended(job, CANCELLED)
    talk.tell("cancel", job=job)  # it crossed the end
    await talk.silence()
    await talk.run(language.ECHO, b"next", expect=b"next")


@rule(215, "a cancel ends the wait for demand")
async def cancel_amid_parts(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.EMIT, language.parts(6, 10), parts=0)
    await talk.began(job)
    await talk.silence(0.05)
    talk.tell("cancel", job=job)
    await talk.ended(job, CANCELLED)


@rule(216, "a job that is cancelled before its turn is ended in its turn")
async def cancel_before_its_turn(stage: Stage) -> None:
    talk = await stage.greeted()
    if talk.hello.credit < 2:
        return
    first = talk.give(language.SLEEP, milliseconds(100))
    second = talk.give(language.SLEEP, LONG)
    await talk.began(first)
    talk.tell("cancel", job=second)
    await talk.ended(first)
    said = await talk.said()
    if said == Began(second):
        said = await talk.said()
    if not isinstance(said, Ended) or (said.job, said.status) != (second, CANCELLED):
        raise Broke(f"the end of the cancelled job was to come, and it said {said}")


@rule(217, "drained, it finishes what it has")
async def drain(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.SLEEP, milliseconds(100))
    await talk.began(job)
    talk.tell("drain", slots=list(range(talk.hello.slots)))
    await talk.ended(job)


@rule(218, "after an end for good it says hello no more")
async def ended_for_good(stage: Stage) -> None:
    talk = await stage.greeted()
    await talk.run(language.ECHO, b"", expect=b"")
    stage.conversations.remove(talk)
    talk.end("drained", again=False)
    await stage.no_hello()
    stage.kill()


@rule(219, "after another end it says hello again, and nothing of what it ran before")
async def ended_and_again(stage: Stage) -> None:
    talk = await stage.greeted()
    await talk.began(talk.give(language.SLEEP, milliseconds(300)))
    stage.conversations.remove(talk)
    talk.end("broke")
    again = await stage.greeted()
    await again.silence(0.5)
    await again.run(language.ECHO, b"new", expect=b"new")


@rule(220, "so it does when its desk is gone without a word")
async def desk_gone(stage: Stage) -> None:
    talk = await stage.greeted()
    await talk.began(talk.give(language.SLEEP, milliseconds(300)))
    stage.conversations.remove(talk)
    talk.drop()
    again = await stage.greeted()
    await again.silence(0.5)
    await again.run(language.ECHO, b"new", expect=b"new")


@rule(221, "told to end by SIGTERM it leaves: it finishes what it has, says so, and ends")
async def leaves(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.SLEEP, milliseconds(500))
    await talk.began(job)
    stage.signal(signal.SIGTERM)
    left = ended = False
    while not (left and ended):
        match await talk.said():
            case Leave():
                left = True
            case Ended(ended_job, status) if ended_job == job and status == layout.STATUS_OK:
                ended = True
            case said:
                raise Broke(f"as it was told to end it said {said}")
    stage.conversations.remove(talk)
    talk.end("drained", again=False)
    await stage.gone()


# ---- life


@rule(222, "its heart beats as often as it is told, also while a handler holds the CPU")
async def beats(stage: Stage) -> None:
    talk = await stage.greeted()
    job = talk.give(language.HOLD, milliseconds(10 * HEARTBEAT_MS))
    await talk.began(job)
    await talk.ended(job)
    # Eight of ten: a loaded machine lets a beat be late, a heart that stands still has none.
    if len(talk.beats_s) < 8:
        raise Broke(f"{len(talk.beats_s)} beats in the time of ten")
    if not talk.ready:
        raise Broke("it says that it is not ready")


@rule(223, "one that wants no jobs for now says so, and says when it wants them again")
async def readiness(stage: Stage) -> None:
    talk = await stage.greeted()
    for ready in (False, True):
        await talk.run(language.READY, bytes([ready]))
        with trio.move_on_after(stage.patience_s):
            while talk.ready is not ready:
                await talk.silence(HEARTBEAT_MS / 1000)
        if talk.ready is not ready:
            raise Broke(f"its heartbeats do not say that ready is {ready}")


@rule(224, "its node's death is seen: what it ran is told by nobody")
async def death(stage: Stage) -> None:
    talk = await stage.greeted()
    down = await stage.node.monitor(talk.hello.pid)
    job = talk.give(language.SLEEP, LONG)
    await talk.began(job)
    stage.signal(signal.SIGKILL)
    with trio.move_on_after(stage.patience_s) as waiting:
        await down.wait()
    if waiting.cancelled_caught:
        raise Broke("no DOWN came of its process")
    stage.conversations.remove(talk)
    await talk.silence(0.05)
    stage.kill()
