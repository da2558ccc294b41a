"""Compressed payloads: what a worker that has taken the feature does with frames, and any other.

Whether it takes the feature is its own affair: a kit may have no zstd, or a machine none.
"""

from __future__ import annotations

from bridge.fabric import layout
from workers.conformance import frames, language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import CODE_BAD_FRAME, FAILED, Broke, NotHere
from workers.conformance.language import fail, large, large_answer, noise
from workers.conformance.link import BOTH_CRC
from workers.conformance.peer import Peer

CHAPTER = Chapter("Compressed payloads")
BROKEN_BRIDGE = 76
LIMIT = 1 << 20  # as large as the region
ZSTD, ACCEPTS = layout.FLAG_ZSTD, layout.FLAG_ACCEPTS_ZSTD


def start(bench: Bench) -> Peer:
    peer = bench.start(features=BOTH_CRC | layout.FEATURE_ZSTD)
    if not int(peer.hello()["features"]) & layout.FEATURE_ZSTD:
        raise NotHere("it takes no compressed payloads, which it need not")
    at = layout.AT_POSITIONS + layout.RELAY_POSITIONS.at("payload_bytes_max")
    peer.link.relay.word(at).store(LIMIT)  # Z0
    return peer


@CHAPTER.rule(181, "the content of a frame reaches its handler, whatever its size")
def contents(bench: Bench) -> None:
    peer = start(bench)
    for size in (0, 1, 64, 65, 4096, 131_072, 131_073, 1 << 20, 10):
        for content in (noise(size, size), b"c" * size):
            frame = frames.repeated(b"c", size) if size and content[:1] == b"c" else None
            frame = frame or frames.raw(content)
            peer.expect(peer.submit(language.ECHO, frame, flags=ZSTD), payload=content)
        peer.expect(peer.submit(language.ECHO, b"plain" * 100), payload=b"plain" * 100)
    job = peer.submit(language.FAIL, frames.raw(fail(9, b"as it was sent")), flags=ZSTD)
    peer.expect(job, FAILED, b"as it was sent", code=9)


WHOLE = frames.raw(noise(3000, 3000))
LIES = {
    "no frame": b"no frame at all" * 10,
    "a content past the limit": frames.repeated(b"b", LIMIT + 1),
    "a bomb that states little": frames.repeated(b"b", 64 << 20, 1000),
    "more stated than there is": frames.raw(noise(1000), 1001),
    "a frame and a half": WHOLE + WHOLE[:1000],
    "two frames": WHOLE + WHOLE,
    "an empty one behind it": WHOLE + frames.raw(b""),
    "half a frame": WHOLE[:1500],
    "a head alone": WHOLE[:9],
    "a kind of block that there is not": WHOLE[:9] + (1 | 3 << 1).to_bytes(3, "little"),
    "a dictionary": b"\x28\xb5\x2f\xfd\x21\x01\x07" + WHOLE[9:],
    "no size stated": b"\x28\xb5\x2f\xfd\x00\x58" + WHOLE[9:],
}


@CHAPTER.rule(182, "a frame that lies, or is past the limit, has failed its job with code 65283")
def lies(bench: Bench) -> None:
    peer = start(bench)
    for what, frame in LIES.items():
        try:
            peer.expect(peer.submit(language.ECHO, frame, flags=ZSTD), FAILED, code=CODE_BAD_FRAME)
        except Broke as error:
            raise Broke(f"{what}: {error}") from None
    frame = frames.repeated(b"b", LIMIT)
    peer.expect(peer.submit(language.ECHO, frame, flags=ZSTD), payload=b"b" * LIMIT)


@CHAPTER.rule(
    183, "an answer is compressed where that is accepted, if it gets smaller, and not else"
)
def answers(bench: Bench) -> None:
    peer = start(bench)
    for size in (0, 100, 5000, 300_000):
        content = large_answer(size, 5)
        peer.expect(peer.submit(language.LARGE, large(size, 5)), payload=content)
        answer = peer.expect_any(peer.submit(language.LARGE, large(size, 5), flags=ACCEPTS))
        if not answer.flags & ZSTD:
            if answer.payload != content:
                raise Broke(f"the answer is {answer}, not its {size} bytes as they are")
            if size == 300_000:
                raise Broke("it compresses nothing of 300,000 bytes that repeat themselves")
            continue
        if len(answer.payload) >= size:
            raise Broke(f"{size} bytes became {len(answer.payload)} by compressing them")
        back = peer.submit(language.ECHO, answer.payload, flags=ZSTD)
        peer.expect(back, payload=content)  # the frame is one, and its content the answer
    incompressible = noise(50_000, 1)
    peer.expect(peer.submit(language.ECHO, incompressible, flags=ACCEPTS), payload=incompressible)
    term = b"m" + (60_000).to_bytes(4) + bytes(60_000)
    flags = ACCEPTS | layout.FLAG_TERM
    peer.expect(peer.submit(language.ECHO, term, flags=flags), payload=term, term=True)


@CHAPTER.rule(184, "a compressed payload that was not agreed to ends it with 76")
def not_agreed(bench: Bench) -> None:
    peer = bench.start()
    peer.submit(language.ECHO, WHOLE, flags=ZSTD)
    peer.expect_exit(BROKEN_BRIDGE)
