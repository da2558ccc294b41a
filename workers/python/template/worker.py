"""@ROLE@: answers its payload with the letters a to z in capitals. Put your work in handle()."""

from ringbridge_worker import Answer, Job, serve

SLICE_BYTES = 1 << 20


def handle(job: Job) -> Answer:
    room = job.reserve(len(job.payload))  # in memory that the bridge reads
    for at in range(0, len(room), SLICE_BYTES):
        job.check()  # nobody waits any more: raises Cancelled, and the kit answers
        piece = bytes(job.payload[at : at + SLICE_BYTES])
        room[at : at + len(piece)] = piece.upper()
    return room


if __name__ == "__main__":
    # What has to be loaded or opened is done here, before the worker says that it is ready.
    serve(handle)
