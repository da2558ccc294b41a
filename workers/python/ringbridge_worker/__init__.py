"""The worker kit for Python: a process that serves jobs of a ringbridge (docs/workers-python.md).

    from ringbridge_worker import Job, serve


    def handle(job: Job) -> bytes:
        return bytes(job.payload).upper()


    if __name__ == "__main__":
        serve(handle)

Standard library only. `bridge.etf` is imported with the first term, not before.
"""

from ringbridge_worker._answers import (
    Answer,
    AnswerTooLarge,
    Cancelled,
    ChannelError,
    JobFailed,
    PeerFailed,
    Term,
)
from ringbridge_worker._handlers import Handler
from ringbridge_worker._job import Job, State
from ringbridge_worker._kit import Peer
from ringbridge_worker._serve import Op, serve, set_ready

__all__ = [
    "Answer",
    "AnswerTooLarge",
    "Cancelled",
    "ChannelError",
    "Handler",
    "Job",
    "JobFailed",
    "Op",
    "Peer",
    "PeerFailed",
    "State",
    "Term",
    "serve",
    "set_ready",
]
