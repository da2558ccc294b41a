"""How a worker ends, what it hears meanwhile, and its heart."""

from __future__ import annotations

import signal

import pytest

from bridge.fabric import layout
from workers.conformance.jobs import CANCELLED, FAILED, OK, PART
from workers.conformance.link import unpack

from .conftest import Start


@pytest.mark.parametrize("control", [layout.CONTROL_DRAIN, layout.CONTROL_STOP])
def test_serve_returns_when_told_and_the_script_goes_on(start: Start, control: int) -> None:
    peer = start(
        """
import atexit
atexit.register(lambda: print("at exit", file=sys.stderr))
serve(lambda job: job.payload)
print("behind serve", file=sys.stderr)
"""
    )
    peer.expect(peer.submit(0, b"one"), OK, b"one")
    peer.control(control)
    peer.expect_exit(0)
    assert peer.process.stderr.split("\n")[:2] == ["behind serve", "at exit"]


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("sys.exit(5)", 5),
        ("raise SystemExit", 0),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.abort()", -signal.SIGABRT),
        ("os._exit(9)", 9),
    ],
)
def test_what_ends_the_process_leaves_its_job_unanswered(
    start: Start, statement: str, status: int
) -> None:
    peer = start(
        f"""
def handle(job):
    if job.opcode == 1:
        view = job.payload[2:]
        {statement}
    return b"answered"
serve(handle, short_jobs={statement != "os._exit(9)"})
"""
    )
    first = peer.put(0)
    peer.put(1, b"x" * 9000)
    peer.put(0)
    peer.publish()
    peer.expect_exit(status)
    if statement in ("sys.exit(5)", "raise SystemExit", "raise KeyboardInterrupt", "os._exit(9)"):
        peer.expect(first, OK, b"answered")
    assert peer.poll(0.01) is None
    assert peer.started.load() == 2


def test_finally_around_serve_runs_on_the_way_out(start: Start) -> None:
    peer = start(
        """
def handle(job):
    raise SystemExit(4)
try:
    serve(handle)
finally:
    print("tidied", file=sys.stderr)
"""
    )
    peer.submit(0)
    peer.expect_exit(4)
    assert "tidied" in peer.process.stderr


def test_sigterm_ends_it_at_once_and_a_handler_of_its_own_may_tidy(start: Start) -> None:
    peer = start("serve(lambda job: b'')")
    peer.process.signal(signal.SIGTERM)
    peer.expect_exit(-signal.SIGTERM)
    peer = start(
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(21))
serve(lambda job: b"")
"""
    )
    peer.process.signal(signal.SIGTERM)
    peer.expect_exit(21)


def test_a_signal_handler_runs_while_the_worker_waits(start: Start) -> None:
    """For jobs, in a sleep, and for demand."""
    source = """
def heard(number, frame):
    os.write(2, b"heard ")
signal.signal(signal.SIGUSR1, heard)
def handle(job):
    if job.opcode == 1:
        job.sleep(60)
    job.emit(b"")
serve(handle)
"""
    peer = start(source)
    for count, opcode in enumerate((None, 1, 2), 1):
        job = 0
        if opcode is not None:
            job = peer.submit(opcode, flags=layout.FLAG_PARTS)
            peer.await_started(peer.put_count)
        peer.process.signal(signal.SIGUSR1)
        peer.until(lambda n=count: peer.process.stderr.count("heard") == n, "not heard")  # type: ignore[misc]
        if job:
            peer.cancel(job)
            peer.expect(job, CANCELLED)


def test_the_heart_beats_while_a_handler_holds_the_interpreter_s_lock(start: Start) -> None:
    peer = start(
        """
import ctypes
holding = ctypes.PyDLL(None)
def handle(job):
    for _ in range(4):
        holding.usleep(400_000)
    return b""
serve(handle)
"""
    )
    job = peer.submit(0)
    peer.await_started(1)
    before = peer.telemetry()["heartbeats"]
    peer.until(lambda: peer.telemetry()["heartbeats"] >= before + 2, "no heartbeat")
    assert peer.poll(0) is None
    peer.expect(job, OK, b"")


def test_threads_of_python_run_while_the_worker_waits(start: Start) -> None:
    peer = start(
        """
count = 0
def run():
    global count
    while True:
        count += 1
        time.sleep(0.001)
threading.Thread(target=run, daemon=True).start()
serve(lambda job: b"%d" % count)
"""
    )
    first = int(peer.expect(peer.submit(0)).payload)

    def more() -> bool:
        return int(peer.expect(peer.submit(0)).payload) > first + 10

    peer.until(more, "the thread does not run")


def test_a_generator_is_a_stream_and_for_others_a_list(start: Start) -> None:
    peer = start(
        """
def handle(job):
    for number in range(int(bytes(job.payload))):
        yield Term(number) if number % 2 else b"%d" % number
serve(handle)
"""
    )
    job = peer.submit(0, b"3", flags=layout.FLAG_PARTS, demand=2)
    for payload, term in ((b"0", False), (b"a\x01", True)):
        peer.expect(job, PART, payload, term=term)
    peer.demand(job, 10)
    peer.expect(job, PART, b"2")
    peer.expect(job, OK, b"")
    from bridge.etf import encode_bare

    peer.expect(peer.submit(0, b"3"), OK, encode_bare([b"0", 1, b"2"]), term=True)
    job = peer.submit(0, b"3", flags=layout.FLAG_PARTS, demand=1)
    peer.expect(job, PART, b"0")
    peer.cancel(job)
    peer.expect(job, CANCELLED, b"")


def test_parts_nobody_wants_and_parts_too_large_are_value_errors(start: Start) -> None:
    peer = start(
        """
def handle(job):
    job.emit(b"x" * job.opcode * 1_100_000)
serve(handle)
""",
        result_bytes=4 << 20,
    )
    answer = peer.expect(peer.submit(0), FAILED, code=65282)
    assert b"ValueError: nobody wants parts" in answer.payload
    job = peer.submit(1, flags=layout.FLAG_PARTS, demand=1)
    assert b"ValueError: a part of 1100000" in peer.expect(job, FAILED, code=65282).payload


def test_a_coroutine_is_awaited_and_cancelled_where_it_waits(start: Start) -> None:
    peer = start(
        """
import asyncio
seen = []
async def handle(job):
    if job.opcode == 0:
        await asyncio.sleep(0)
        return bytes(job.payload)
    if job.opcode == 1:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(id(asyncio.get_running_loop()))
    if job.opcode == 2:
        raise JobFailed(3, f"{seen == [id(asyncio.get_running_loop())]}")
serve(handle)
"""
    )
    peer.expect(peer.submit(0, b"there and back"), OK, b"there and back")
    job = peer.submit(1)
    peer.await_started(2)
    peer.cancel(job)
    peer.expect(job, CANCELLED, b"")
    peer.expect(peer.submit(2), FAILED, b"True", code=3)


def test_only_one_worker_a_process(start: Start) -> None:
    peer = start(
        """
def handle(job):
    serve(handle)
serve(handle)
"""
    )
    answer = peer.expect(peer.submit(0), FAILED, code=65282)
    assert answer.payload == b"RuntimeError: one worker a process"


def test_the_hello_names_the_kit(start: Start) -> None:
    peer = start("serve(lambda job: b'')", role="analytics")
    hello = peer.hello()
    assert hello["kit"] == b"python".ljust(32, b"\0")
    assert hello["role"] == b"analytics".ljust(64, b"\0")
    assert hello["kit_version"] == 1 << 16 | 1


def test_operations_are_declared_before_the_hello(start: Start) -> None:
    peer = start(
        """
from ringbridge_worker import Op
serve(lambda job: b"", ops=[Op(7, "square", takes_term=True), Op(8, "r\u00f4le", parts=True)])
"""
    )
    assert peer.hello()["ops"] == 2
    at = layout.AT_HEADER + layout.AT_OPS
    for number, opcode, takes, name in ((0, 7, 2, b"square"), (1, 8, 4, "r\u00f4le".encode())):
        size = layout.WORKER_OP.size
        op = unpack(layout.WORKER_OP, peer.link.worker.read(at + number * size, size))
        assert op == {"opcode": opcode, "takes": takes, "name": name.ljust(28, b"\0")}


@pytest.mark.parametrize(
    "ops",
    ["[Op(1, 'x' * 28)]", "[Op(1, 'a'), Op(1, 'b')]", "[Op(n, f'a{n}') for n in range(65)]"],
)
def test_operations_that_break_a_rule_are_a_value_error(start: Start, ops: str) -> None:
    peer = start(
        f"from ringbridge_worker import Op\nserve(lambda job: b'', ops={ops})", greets=False
    )
    peer.expect_exit(1)
    assert "ValueError: its operations cannot be declared" in peer.process.stderr


def test_a_worker_may_be_unready_from_its_hello_on(start: Start) -> None:
    peer = start(
        """
from ringbridge_worker import set_ready
set_ready(False)
def handle(job):
    threading.Thread(target=set_ready, args=(True,)).start()
    job.pulse()
    return b""
serve(handle)
"""
    )
    assert peer.telemetry()["unready"] == 1
    before = peer.pulse.load()
    peer.expect(peer.submit(0), OK, b"")
    peer.until(lambda: peer.telemetry()["unready"] == 0, "it is not ready again")
    assert peer.pulse.load() == before + 1
