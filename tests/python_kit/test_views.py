"""Memory of a job after its answer: what a handler keeps is its own, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.fabric import layout
from workers.conformance import frames
from workers.conformance.jobs import FAILED, OK
from workers.conformance.link import BOTH_CRC

from .conftest import Start


def test_a_view_is_released_with_the_answer(start: Start) -> None:
    peer = start(
        """
kept = []
def handle(job):
    if job.opcode == 0:
        kept[:] = [job.payload, job.reserve(100), job]
        return b""
    told = []
    for look in (kept[0].tobytes, kept[1].tobytes, kept[2].reserve, kept[2].emit):
        try:
            look(1) if look in (kept[2].reserve, kept[2].emit) else look()
        except ValueError as error:
            told.append(str(error))
    told += [kept[2].id, kept[2].is_cancelled()]
    return repr(told).encode()
serve(handle)
"""
    )
    for size in (8, 100_000):
        first = peer.submit(0, b"x" * size)
        peer.expect(first, OK, b"")
        answer = peer.expect(peer.submit(1), OK).payload
        assert answer.count(b"operation forbidden on released memoryview object") == 2
        assert answer.count(b"the job's handler has returned") == 2
        assert answer.endswith(b", %d, True]" % first)


def test_a_kept_slice_goes_on_showing_its_own_job(start: Start) -> None:
    """The relay gives the block to the next job: the peer takes the lowest one that is free."""
    peer = start(
        """
kept = []
def handle(job):
    if job.opcode == 0:
        kept.append(job.payload[10:])
        return bytes(job.payload[:4])
    if job.opcode == 1:
        return b"".join(bytes(view[:8]) for view in kept)
    if job.opcode == 2:
        kept.clear()
    return bytes(job.payload)
serve(handle)
"""
    )
    expected = b""
    for number in range(6):
        payload = bytes([65 + number]) * 9000
        before = peer.put(3, b"b" * 5000)  # so that the kept one has others on both sides
        job = peer.put(0, payload)
        behind = peer.put(3, b"a" * 5000)
        peer.publish()
        peer.expect(before, OK, b"b" * 5000)
        peer.expect(job, OK, payload[:4])
        peer.expect(behind, OK, b"a" * 5000)
        expected += payload[:8]
        peer.expect(peer.submit(1), OK, expected)
        peer.expect(peer.submit(3, b"n" * 20_000), OK, b"n" * 20_000)
    for payload in (b"inline", b"y" * 64):  # of the envelope: a copy
        peer.expect(peer.submit(0, payload), OK, payload[:4])
    peer.expect(peer.submit(2), OK, b"")
    maps = Path(f"/proc/{peer.process.pid}/maps").read_text()
    assert maps.count("memfd:pool") == 1  # what the kept views needed has gone with them


def test_a_kept_slice_of_a_payload_that_came_compressed_is_its_own_too(start: Start) -> None:
    """Its memory is the kit's, not the pool's: the view takes it over."""
    peer = start(
        """
kept = []
def handle(job):
    if job.opcode == 0:
        kept.append(job.payload[10:])
        return bytes(job.payload[:4])
    if job.opcode == 2:
        kept.clear()
    return b"".join(bytes(view[:8]) for view in kept)
serve(handle)
""",
        features=BOTH_CRC | layout.FEATURE_ZSTD,
    )
    if not int(peer.hello()["features"]) & layout.FEATURE_ZSTD:
        pytest.skip("no libzstd.so.1 on this machine")
    at = layout.AT_POSITIONS + layout.RELAY_POSITIONS.at("payload_bytes_max")
    peer.link.relay.word(at).store(4 << 20)
    expected = b""
    for number, size in enumerate((9000, 2 << 20, 100, 9000, 3 << 20, 64)):
        byte = bytes([65 + number])
        job = peer.submit(0, frames.repeated(byte, size), flags=layout.FLAG_ZSTD)
        peer.expect(job, OK, byte * 4)
        expected += byte * 8
        peer.expect(peer.submit(1), OK, expected)
        peer.expect(peer.submit(1, b"n" * 20_000), OK, expected)
    peer.expect(peer.submit(2), OK, b"")


def test_a_kept_room_is_no_part_of_a_later_answer(start: Start) -> None:
    peer = start(
        """
kept = []
def handle(job):
    if job.opcode == 0:
        room = job.reserve(300_000)
        room[:] = b"a" * len(room)
        kept.append(room[1:])
        return room
    if job.opcode == 1:
        room = job.reserve(300_000)
        room[:] = b"b" * len(room)
        for view in kept:
            view[:] = b"!" * len(view)
        return room
    kept.clear()
    return b""
serve(handle)
"""
    )
    answer = peer.expect(peer.submit(0), OK, b"a" * 300_000, keep=True)
    held = [answer]
    for _ in range(2):
        answer = peer.expect(peer.submit(1), OK, b"b" * 300_000, keep=True)
        peer.give_back(answer)
    at = peer.link.parts.results_at
    assert answer.extent is not None
    first = held[0].extent[0] * peer.plan.result_block_bytes  # type: ignore[index]
    assert peer.link.worker.read(at + first, 300_000) == b"a" * 300_000
    peer.give_back(held[0])
    peer.expect(peer.submit(2), OK, b"")
    for _ in range(5):  # the whole region is to be had again
        peer.expect(peer.submit(1), OK, b"b" * 300_000)
    peer.expect(peer.submit(0), OK, b"a" * 300_000)


def test_arrays_over_payload_and_room_count_as_views(start: Start) -> None:
    peer = start(
        """
import array, ctypes
kept = []
def handle(job):
    if job.opcode == 0:
        kept.append(memoryview(job.payload).cast("B"))
        del job
        return b"ok"
    return bytes(kept[0][:5])
serve(handle)
"""
    )
    peer.expect(peer.submit(0, b"first" * 1000), OK, b"ok")
    peer.expect(peer.submit(2, b"other" * 1000), OK, b"first")


def test_a_failing_handler_s_frames_do_not_keep_its_views(start: Start) -> None:
    peer = start(
        """
def handle(job):
    if job.opcode == 0:
        part = job.payload[5:]
        raise RuntimeError("with a view in its frame")
    return open("/proc/self/maps").read().count("memfd:pool").to_bytes(1, "little")
serve(handle)
"""
    )
    peer.expect(peer.submit(0, b"x" * 9000), FAILED, code=65282)
    peer.expect(peer.submit(1), OK, b"\x01")


def test_a_job_belongs_to_its_thread_but_for_is_cancelled(start: Start) -> None:
    peer = start(
        """
def handle(job):
    told = []
    def other():
        told.append(job.is_cancelled())
        for call in (lambda: job.payload, lambda: job.reserve(1), lambda: job.sleep(0)):
            try:
                call()
            except RuntimeError:
                told.append("refused")
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return repr(told).encode()
serve(handle)
"""
    )
    peer.expect(peer.submit(0), OK, b"[False, 'refused', 'refused', 'refused']")


def test_a_forked_child_holds_neither_memory_nor_descriptors_of_the_link(start: Start) -> None:
    peer = start(
        """
def handle(job):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        fds = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{n}")]
        maps = open("/proc/self/maps").read()
        told = [sum("memfd" in fd for fd in fds), maps.count("side"), job.is_cancelled()]
        try:
            job.reserve(10)
        except RuntimeError:
            told.append("refused")
        os.write(write, repr(told).encode())
        if job.opcode == 1:
            os._exit(0)
        if job.opcode == 2:
            sys.exit(3)
        return b"from a child"
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return os.read(read, 100) + b" %d" % status
serve(handle)
"""
    )
    for opcode, status in ((0, 0), (1, 0), (2, 3)):
        job = peer.submit(opcode, b"p" * 5000)
        peer.expect(job, OK, b"[2, 0, True, 'refused'] %d" % status)


def test_payloads_come_by_the_pool_or_in_the_envelope(start: Start) -> None:
    peer = start("def handle(job):\n    return job.payload\nserve(handle)", pool_bytes=0)
    peer.expect(peer.submit(0, b"i" * layout.INLINE_BYTES_MAX), OK, b"i" * 64)
