"""Plans: what they may say, and when each injection is due."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.chaos.lane import Shape
from bridge.chaos.plan import Hook, Wire, parse, read
from bridge.ops.errors import Refused

LEAST: dict[str, Any] = {
    "hypothesis": "nothing ever goes wrong",
    "role": "echo",
    "inject": [{"what": "cut"}],
}


def test_the_least_plan_has_defaults() -> None:
    plan = parse(LEAST)
    assert (plan.callers, plan.expect.reasons, plan.expect.failed_max) == (4, (), 0)
    assert plan.times_ms(plan.inject[0]) == [0]


def test_what_comes_again_comes_until_the_trouble_is_over() -> None:
    plan = parse(
        {**LEAST, "trouble_ms": 1_000, "inject": [{"what": "cut", "at_ms": 100, "every_ms": 300}]}
    )
    assert plan.times_ms(plan.inject[0]) == [100, 400, 700]


def test_each_injection_is_of_its_kind() -> None:
    wire = {"what": "wire", "for_ms": 5, "delay_ms": 2, "still": True}
    hook = {"what": "hook", "hook": "stall", "value": 7}
    first, second = parse({**LEAST, "inject": [wire, hook]}).inject
    assert isinstance(first, Wire)
    assert first.shape() == Shape(delay_ms=2, still=True)
    assert second == Hook(hook="stall", value=7)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"hypothesis": "short"}, r"\$\.hypothesis"),
        ({"inject": []}, r"\$\.inject"),
        ({"inject": [{"what": "wire"}]}, "for_ms"),
        ({"inject": [{"what": "hook", "hook": "Stall 1"}]}, "hook"),
        ({"inject": [{"what": "signal", "signal": "HUP"}]}, "signal"),
        ({"inject": [{"what": "cut", "for_ms": 5}]}, "for_ms"),
        ({"inject": [{"what": "cut", "at_ms": 1_000}]}, r"inject\[0\]\.at_ms"),
        ({"expect": {"reason": ["x"]}}, "reason"),
    ],
)
def test_what_breaks_a_rule_names_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        parse({**LEAST, **change})


def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    for text in (None, "hypothesis =", "role = 'echo'"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(Refused, match=r"plan\.toml: "):
            read(path)
