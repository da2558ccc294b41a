"""What a remote worker may say of the jobs of one slot, and when."""

import pytest

from bridge.fabric import layout
from bridge.workers.remote.messages import BrokenRule
from bridge.workers.remote.turns import OpenJob, Turns

OK, CANCELLED = layout.STATUS_OK, layout.STATUS_CANCELLED
PART, PROGRESS = layout.STATUS_PART, layout.STATUS_PROGRESS


def turns(*jobs: int, parts: int | None = None, progress: bool = False) -> Turns:
    made = Turns()
    for position, job in enumerate(jobs):
        made.give(OpenJob(job, position, parts is not None, progress, parts_told=parts or 0))
    return made


def broken(rule: str) -> pytest.RaisesExc[BrokenRule]:
    return pytest.raises(BrokenRule, match=rule, check=lambda error: error.rule == rule)


def test_jobs_are_begun_and_ended_in_their_order() -> None:
    its = turns(5, 6)
    assert its.begin(5).started
    assert its.end(5, OK, 10, 100).id == 5
    its.begin(6)
    its.end(6, OK, 100, 100)
    assert len(its) == 0


def test_a_job_that_waits_is_not_begun_nor_ended_before_those_in_front_of_it() -> None:
    its = turns(5, 6)
    for wrong in (its.begin, its.pulse):
        with broken("remote_out_of_turn"):
            wrong(6)
    with broken("remote_out_of_turn"):
        its.end(6, CANCELLED, 0, 100)


def test_a_job_is_begun_once_and_ended_once() -> None:
    its = turns(5)
    its.begin(5)
    with broken("remote_out_of_turn"):
        its.begin(5)
    its.end(5, OK, 0, 100)
    for wrong in (its.begin, its.pulse):
        with broken("remote_unknown_job"):
            wrong(5)
    with broken("remote_unknown_job"):
        its.end(5, OK, 0, 100)


def test_only_a_cancelled_job_may_end_before_its_begin() -> None:
    with broken("remote_out_of_turn"):
        turns(5).end(5, OK, 0, 100)
    assert turns(5).end(5, CANCELLED, 0, 100).started is False


def test_an_answer_has_its_bound() -> None:
    its = turns(5)
    its.begin(5)
    with broken("remote_too_large"):
        its.end(5, OK, 101, 100)


def test_parts_go_as_far_as_was_told() -> None:
    its = turns(5, parts=2)
    with broken("remote_out_of_turn"):
        its.say(5, PART, 1)
    its.begin(5)
    with broken("remote_too_large"):
        its.say(5, PART, layout.PART_BYTES_MAX + 1)
    for _ in range(2):
        assert its.say(5, PART, layout.PART_BYTES_MAX) is not None
    with broken("remote_part_without_demand"):
        its.say(5, PART, 1)


def test_a_job_that_is_answered_whole_has_no_parts() -> None:
    its = turns(5)
    its.begin(5)
    with broken("remote_part_without_demand"):
        its.say(5, PART, 1)


def test_progress_that_nobody_wants_is_dropped_and_breaks_nothing() -> None:
    its = turns(5)
    its.begin(5)
    assert its.say(5, PROGRESS, 10) is None
    its = turns(5, progress=True)
    its.begin(5)
    assert its.say(5, PROGRESS, layout.PROGRESS_BYTES_MAX) is not None
    with broken("remote_too_large"):
        its.say(5, PROGRESS, layout.PROGRESS_BYTES_MAX + 1)


def test_patience_with_a_cancelled_job_counts_from_its_turn() -> None:
    its = turns(5, 6)
    its.begin(5)
    five, six = its
    six.cancel_told = True
    assert its.overdue(0.0, 2.0) is None
    assert its.overdue(100.0, 2.0) is None
    its.end(5, OK, 0, 100)
    assert five.cancelled_s is None
    assert its.overdue(100.0, 2.0) is None
    assert its.overdue(102.0, 2.0) is None
    assert its.overdue(102.1, 2.0) is six
