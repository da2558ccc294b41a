"""A small machine that explores every execution of a few threads under C11's memory model.

Each location keeps all messages ever stored to it, in order (each location has one writer here, so
program order is modification order). Each thread has a view: for every location, the oldest message
that it may still read. A load may return any message from there on: this is how a load that the
processor performed early, or a store that still waits in a store buffer, shows. Orders say what a
message carries:

    release store   the writer's view goes with the message      acquire load   takes that view over
    relaxed store   only the message itself                      relaxed load   only the message
    seq_cst         as release and acquire; and a seq_cst load sees at least the last seq_cst store

Plain (non-atomic) accesses are checked for races by clocks in the views: an access that does not
happen after a conflicting one is an error, as ThreadSanitizer would say. What this machine does not
show by itself is a load that is performed after a later store (load buffering): where the code
relies on such an order, the race check stands in for it, or a variant of the program with the two
accesses exchanged.

System calls take a lock in the kernel, with a view of its own: who calls later sees what who called
earlier had seen (the full barriers in futex_wait() and futex_wake(), Linux kernel/futex/core.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

View = tuple[int, ...]

RELAXED, ACQUIRE, RELEASE, SEQ_CST = "relaxed", "acquire", "release", "seq_cst"


class Broken(Exception):
    """An execution breaks a rule."""


class Thread(NamedTuple):
    at: str  # name of the next step; END when done
    view: View  # per location the oldest readable message, then one clock per thread
    local: tuple[int, ...]  # private variables


class State(NamedTuple):
    messages: tuple[tuple[tuple[int, View], ...], ...]  # per location: (value, view) in order
    last_seq_cst: tuple[int, ...]  # per location: index of the last seq_cst store
    kernel: View
    bell: int  # futex: 1 when the waiter is queued; eventfd: its count
    plain: tuple[
        tuple[int, ...], ...
    ]  # per plain location: last write's thread, clock; read clocks
    threads: tuple[Thread, ...]


END = "end"
Steps = dict[str, Callable[[State, int], Iterator[State]]]


def join(a: View, b: View) -> View:
    return tuple(map(max, a, b))


def raised(view: View, index: int, value: int) -> View:
    return (*view[:index], max(view[index], value), *view[index + 1 :])


def initial(locations: int, starts: list[tuple[str, tuple[int, ...]]], plain: int = 0) -> State:
    """All locations hold 0. `plain` locations, the last ones, are not atomic."""
    width = locations + len(starts)
    nothing: View = (0,) * width
    return State(
        messages=(((0, nothing),),) * locations,
        last_seq_cst=(0,) * locations,
        kernel=nothing,
        bell=0,
        plain=((0, 0) + (0,) * len(starts),) * plain,
        threads=tuple(Thread(at, nothing, local) for at, local in starts),
    )


def moved(s: State, t: int, **change: object) -> State:
    """The state with fields of thread t replaced."""
    threads = list(s.threads)
    threads[t] = threads[t]._replace(**change)  # type: ignore[arg-type]
    return s._replace(threads=tuple(threads))


def load(s: State, t: int, location: int, order: str) -> Iterator[tuple[int, State]]:
    """Every value that the load may return, each with the state after it."""
    view = s.threads[t].view
    oldest = view[location]
    if order == SEQ_CST:
        oldest = max(oldest, s.last_seq_cst[location])
    for index in range(oldest, len(s.messages[location])):
        value, carried = s.messages[location][index]
        after = raised(view, location, index)
        if order in (ACQUIRE, SEQ_CST):
            after = join(after, carried)
        yield value, moved(s, t, view=after)


def store(s: State, t: int, location: int, value: int, order: str) -> State:
    index = len(s.messages[location])
    view = raised(s.threads[t].view, location, index)
    carried: View = (
        view if order in (RELEASE, SEQ_CST) else raised((0,) * len(view), location, index)
    )
    messages = list(s.messages)
    messages[location] = (*messages[location], (value, carried))
    s = moved(s._replace(messages=tuple(messages)), t, view=view)
    if order == SEQ_CST:
        last = raised(s.last_seq_cst, location, index)
        s = s._replace(last_seq_cst=last)
    return s


def _plain_index(s: State, location: int) -> int:
    return location - (len(s.messages) - len(s.plain))


def _tick(s: State, t: int) -> tuple[State, int]:
    view = s.threads[t].view
    clock = view[len(s.messages) + t] + 1
    return moved(s, t, view=raised(view, len(s.messages) + t, clock)), clock


def plain_write(s: State, t: int, location: int, value: int) -> State:
    writer, written, *reads = s.plain[_plain_index(s, location)]
    clocks = s.threads[t].view[len(s.messages) :]
    if clocks[writer] < written or any(clocks[r] < c for r, c in enumerate(reads)):
        raise Broken("a slot is written while the other side may still read it")
    s, clock = _tick(s, t)
    plain = list(s.plain)
    plain[_plain_index(s, location)] = (t, clock, *reads)
    return store(s._replace(plain=tuple(plain)), t, location, value, RELAXED)


def plain_read(s: State, t: int, location: int) -> Iterator[tuple[int, State]]:
    writer, written, *reads = s.plain[_plain_index(s, location)]
    if s.threads[t].view[len(s.messages) + writer] < written:
        raise Broken("a slot is read before its bytes are sure to be there")
    s, clock = _tick(s, t)
    reads[t] = clock
    plain = list(s.plain)
    plain[_plain_index(s, location)] = (writer, written, *reads)
    yield from load(s._replace(plain=tuple(plain)), t, location, RELAXED)


def enter_kernel(s: State, t: int) -> State:
    both = join(s.kernel, s.threads[t].view)
    return moved(s._replace(kernel=both), t, view=both)


def without_past(s: State) -> State:
    """The state without messages that no thread can read any more, and with clocks that all have
    seen set back: two states that differ only in such a past go on alike."""
    base = tuple(map(min, *(thread.view for thread in s.threads)))
    if not any(base):
        return s
    atomic = len(s.messages)

    def later(view: View) -> View:
        return tuple(v - b if v > b else 0 for v, b in zip(view, base, strict=True))

    messages = tuple(
        tuple((value, later(view)) for value, view in of_one[oldest:])
        for of_one, oldest in zip(s.messages, base[:atomic], strict=True)
    )
    clocks = base[atomic:]
    plain = tuple(
        (
            writer,
            max(0, written - clocks[writer]),
            *(max(0, c - b) for c, b in zip(reads, clocks, strict=True)),
        )
        for writer, written, *reads in s.plain
    )
    return State(
        messages=messages,
        last_seq_cst=tuple(max(0, i - b) for i, b in zip(s.last_seq_cst, base, strict=False)),
        kernel=later(s.kernel),
        bell=s.bell,
        plain=plain,
        threads=tuple(Thread(at, later(view), local) for at, view, local in s.threads),
    )


def explore(start: State, programs: list[Steps], states_max: int = 2_000_000) -> int:
    """Visits every state. Returns how many there are.

    Raises Broken, with the steps that led there, when a step does, or when threads are left that
    cannot go on (a lost wake-up).
    """
    parents: dict[State, tuple[State, str] | None] = {start: None}
    todo = [start]
    while todo:
        s = todo.pop()
        stuck = True
        for t, program in enumerate(programs):
            thread = s.threads[t]
            if thread.at == END:
                continue
            try:
                for after in program[thread.at](s, t):
                    stuck = False
                    after = without_past(after)
                    if after not in parents:
                        parents[after] = (s, f"{t}: {thread.at}")
                        todo.append(after)
            except Broken as broken:
                raise Broken(_story(parents, s, f"{t}: {thread.at}", str(broken))) from None
        if stuck and any(thread.at != END for thread in s.threads):
            raise Broken(_story(parents, s, "nothing", "a wake-up is lost: nobody can go on"))
        if len(parents) > states_max:
            raise RuntimeError(
                f"more than {states_max} states: the program is too large to explore"
            )
    return len(parents)


def _story(parents: dict[State, tuple[State, str] | None], s: State, last: str, why: str) -> str:
    steps = [last]
    while parent := parents[s]:
        s, step = parent
        steps.append(step)
    return why + "\n    " + " > ".join(reversed(steps))
