"""The kept inputs of the fuzzers, and changes of them, in every test run (make fuzz takes longer).

An input whose name begins with rule- once broke a rule, and stays.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from itertools import islice

import pytest
import structlog
from mutations import changed, kept
from targets import TARGETS

CHANGES = 4000


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """A connection that is dropped leaves a line, here thousands."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_and_changes_of_them_break_no_rule(target: str) -> None:
    inputs = kept(target)
    assert len(inputs) > 5
    for name, data in inputs.items():
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"tests/fuzz/corpus/{target}/{name}") from error
    for data in islice(changed(list(inputs.values()), random.Random(target)), CHANGES):
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target}: {data.hex()}") from error
