"""What a worker must not leave behind or hand on."""

from __future__ import annotations

import os

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import CODE_NO_ANSWER, FAILED, Broke
from workers.conformance.language import end, large, noise, parts

CHAPTER = Chapter("Nothing left, nothing handed on")
O_CLOEXEC = os.O_CLOEXEC


@CHAPTER.rule(91, "the link's descriptors are close-on-exec, so nothing that it starts holds them")
def close_on_exec(bench: Bench) -> None:
    peer = bench.start()
    pid = peer.process.pid
    for number in range(layout.FD_RELAY_SIDE, layout.FD_CHANNEL + 1):
        try:
            with open(f"/proc/{pid}/fdinfo/{number}") as info:
                flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
        except FileNotFoundError:
            continue  # a worker may close what it does not use
        if not flags & O_CLOEXEC:
            raise Broke(f"descriptor {number} is inherited by what the worker starts")


@CHAPTER.rule(92, "no job leaves a descriptor open")
def no_descriptor_per_job(bench: Bench) -> None:
    peer = bench.start()
    peer.expect(peer.submit(language.ECHO, b"warm"))
    before = peer.process.open_files()
    for i in range(60):
        peer.expect(peer.submit(language.ECHO, noise(100 * i)), payload=noise(100 * i))
        peer.expect(peer.submit(language.LARGE, large(5000)))
        peer.expect(peer.submit(language.END, end(language.NO_ANSWER)), FAILED, code=CODE_NO_ANSWER)
        job = peer.submit(language.EMIT, parts(1, 100), flags=layout.FLAG_PARTS, demand=1)
        peer.give_back(peer.take())
        peer.expect(job)
    after = peer.process.open_files()
    if len(after) > len(before) + 1:  # one: what a runtime opens once, and later
        raise Broke(f"{len(before)} descriptors were open, and then {len(after)}: {after}")


@CHAPTER.rule(93, "nothing comes on stdout")
def silent_stdout(bench: Bench) -> None:
    peer = bench.start()
    peer.expect(peer.submit(language.ECHO, b"hush"))
    peer.control(layout.CONTROL_DRAIN)
    peer.expect_exit(0)
    if said := peer.process.stdout:
        raise Broke(f"stdout has {said[:200]!r}")


@CHAPTER.rule(94, "whatever it has started ends with it: its process group is empty afterwards")
def no_processes_left(bench: Bench) -> None:
    peer = bench.start()
    peer.control(layout.CONTROL_DRAIN)
    peer.expect_exit(0)
    if left := peer.process.others_of_its_group():
        raise Broke(f"processes of its group live on: {left}")
