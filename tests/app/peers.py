"""peers.c, as far as test_worker_links_python.py needs it, on the kit in Python."""

import errno
import os
import signal

from ringbridge_worker import Answer, ChannelError, Job, JobFailed, Peer, PeerFailed, serve

ECHO, SLEEP, DIE, FAIL, ABOUT, ASK = 0, 1, 2, 3, 4, 10
peer: Peer | None = None


def ask(job: Job) -> Answer:
    """Payload: role, 0, opcode u8, timeout_ms u32, what is asked."""
    global peer
    role, _, rest = bytes(job.payload).partition(b"\0")
    try:
        if peer is None:
            peer = job.open_peer(role.decode())
        return job.ask(peer, rest[5:], rest[0], int.from_bytes(rest[1:5], "little") / 1000)
    except PeerFailed as error:
        raise JobFailed(error.code, f"peer: {error.message}") from error
    except ChannelError as error:
        if error.errno in (errno.EPIPE, errno.EPROTO):
            peer = None  # which gives it back; another one the next time
        raise JobFailed(error.errno, errno.errorcode[error.errno]) from error


def handle(job: Job) -> Answer:
    if job.opcode == ASK:
        return ask(job)
    if job.opcode == SLEEP:
        job.sleep(int.from_bytes(job.payload[:4], "little") / 1000)
    if job.opcode == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.opcode == FAIL:
        raise JobFailed(7, "not today")
    if job.opcode == ABOUT:
        trace = bytes.fromhex((job.traceparent or "").split("-")[1])
        ends = f"{trace[0]:02x}{trace[-1]:02x}"
        return f"{job.deadline_ns is not None:d} {ends} {job.wants_parts:d}".encode()
    return job.payload


if __name__ == "__main__":
    serve(handle, serves_peers=True)
