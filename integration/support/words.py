"""The worker of map_test.exs: makes pages of a text, counts the words of one, adds counts up."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable

from ringbridge_worker import Answer, Job, Term, serve


def pages(job: Job) -> Answer:
    lines = bytes(job.payload).split(b"\n")
    return Term([b"\n".join(lines[at : at + 3]) for at in range(0, len(lines), 3)])


def count(job: Job) -> Answer:
    text = bytes(job.payload)
    if text == b"die":
        os._exit(7)
    return Term(dict(Counter(re.findall(rb"[a-z]+", text.lower()))))


def add(job: Job) -> Answer:
    total: Counter[bytes] = Counter()
    for counts in job.term():
        total.update(counts)
    return Term(dict(total))


HANDLERS: dict[str, Callable[[Job], Answer]] = {"pages": pages, "count": count, "sum": add}

serve(HANDLERS[sys.argv[1]])
