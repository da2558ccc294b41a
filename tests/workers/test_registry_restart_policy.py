"""restart_policy.py: OTP's restart types, intensity, and the backoff between restarts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.workers.restart_policy import GiveUp, LeaveEnded, Restart, RestartPolicy, StartAgain


def policy(restart: Restart = "permanent", max_restarts: int = 3) -> RestartPolicy:
    return RestartPolicy(restart, max_restarts, 60.0, 0.1, 1.0)


@pytest.mark.parametrize(
    ("restart", "normal", "again"),
    [
        ("permanent", True, True),
        ("permanent", False, True),
        ("transient", True, False),
        ("transient", False, True),
        ("temporary", True, False),
        ("temporary", False, False),
    ],
)
def test_the_restart_type_decides_as_in_otp(restart: Restart, normal: bool, again: bool) -> None:
    decision = policy(restart).decide(now_s=0.0, normal=normal, random=0.0)
    assert isinstance(decision, StartAgain if again else LeaveEnded)


def test_the_backoff_doubles_up_to_its_maximum() -> None:
    subject = policy(max_restarts=10)
    decisions = [subject.decide(now_s=float(n), normal=False, random=0.0) for n in range(6)]
    assert decisions == [StartAgain(d) for d in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0)]


def test_jitter_takes_off_up_to_a_half() -> None:
    decision = policy().decide(now_s=0.0, normal=False, random=0.5)
    assert isinstance(decision, StartAgain)
    assert decision.delay_s == pytest.approx(0.075)


def test_one_end_more_than_max_restarts_within_the_window_gives_up() -> None:
    subject = policy(max_restarts=3)
    for now_s in (0.0, 1.0, 2.0):
        assert isinstance(subject.decide(now_s=now_s, normal=False, random=0.0), StartAgain)
    decision = subject.decide(now_s=59.0, normal=False, random=0.0)
    assert decision == GiveUp("ended 4 times within 60 s; max_restarts allows 3 restarts")


def test_ends_older_than_the_window_are_forgotten_and_the_backoff_with_them() -> None:
    subject = policy(max_restarts=3)
    for now_s in (0.0, 1.0, 2.0):
        subject.decide(now_s=now_s, normal=False, random=0.0)
    assert subject.decide(now_s=62.0, normal=False, random=0.0) == StartAgain(0.1)


def test_forget_begins_a_clean_history() -> None:
    subject = policy(max_restarts=1)
    subject.decide(now_s=0.0, normal=False, random=0.0)
    subject.forget()
    assert subject.decide(now_s=0.1, normal=False, random=0.0) == StartAgain(0.1)


def test_no_restart_allowed_means_none() -> None:
    assert isinstance(policy(max_restarts=0).decide(now_s=0, normal=False, random=0), GiveUp)


def test_a_backoff_of_a_thousand_ends_is_still_a_number() -> None:
    subject = RestartPolicy("permanent", 10_000, 1e9, 0.1, 1.0)
    for n in range(2_000):
        decision = subject.decide(now_s=float(n), normal=False, random=0.0)
    assert decision == StartAgain(1.0)


@given(
    gaps=st.lists(st.sampled_from([0.0, 1.0, 20.0, 59.0, 60.0, 61.0]), max_size=30),
    max_restarts=st.integers(0, 5),
    random=st.floats(0, 1, exclude_max=True),
)
def test_intensity_and_backoff_are_those_of_a_policy_that_forgets_nothing(
    gaps: list[float], max_restarts: int, random: float
) -> None:
    """It counts anew, at each end, all that lie within the window before it."""
    subject = RestartPolicy("permanent", max_restarts, 60.0, 0.1, 1.0)
    ends: list[float] = []
    now_s = 0.0
    for gap in gaps:
        now_s += gap
        ends.append(now_s)
        count = sum(end > now_s - 60.0 for end in ends)
        decision = subject.decide(now_s=now_s, normal=False, random=random)
        if count > max_restarts:
            assert isinstance(decision, GiveUp)
        else:
            assert isinstance(decision, StartAgain)
            longest = min(1.0, 0.1 * 2 ** (count - 1))
            assert longest / 2 <= decision.delay_s <= longest  # half itself: by rounding


def test_other_numbers_hold_for_the_history_that_there_is() -> None:
    subject = policy(max_restarts=3)
    for now_s in (0.0, 1.0):
        subject.decide(now_s=now_s, normal=False, random=0.0)
    subject.adjust(policy("transient", max_restarts=2))
    assert isinstance(subject.decide(now_s=2.0, normal=True, random=0.0), LeaveEnded)
    assert isinstance(subject.decide(now_s=2.0, normal=False, random=0.0), GiveUp)
