"""The limit of open descriptors follows the number of configured workers."""

import resource
from pathlib import Path

import pytest

from bridge import config as settings
from bridge.config import ConfigError
from bridge.ops import descriptors


class Limits:
    """Stands for the process's own limits."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def get(self, _which: int) -> tuple[int, int]:
        return self.now

    def set(self, _which: int, limits: tuple[int, int]) -> None:
        self.now = limits


def limits_after(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, workers: int
) -> tuple[int, int]:
    limits = Limits(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    text = f'[roles.echo]\ncommand = ["sh"]\nworkers = {workers}\n'
    descriptors.raise_limit(settings.parse(text, Path("/etc/ringbridge.toml")))
    return limits.now


def test_what_is_enough_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_after(monkeypatch, 1024, 4096, workers=10) == (1024, 4096)
    infinite = resource.RLIM_INFINITY
    assert limits_after(monkeypatch, infinite, infinite, workers=1000) == (infinite, infinite)


def test_the_soft_limit_is_raised_to_what_the_workers_need(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_after(monkeypatch, 1024, 20_000, workers=1000) == (12_512, 20_000)


def test_a_hard_limit_that_is_too_low_is_told_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"1000 workers need 12512 .* the limit is 4096"):
        limits_after(monkeypatch, 1024, 4096, workers=1000)
