"""`ringbridge new worker`: a folder with a worker that runs, from a kit's template.

A template is the folder `template` of a kit. In its files `@ROLE@` stands for the role's name,
`@RINGBRIDGE@` for the folder that has `workers` and `csrc` in it, `@PYTHON@` for this interpreter.
Its `template.toml` is not copied; it says how the new worker is built and started, from its folder:

    build = ["make"]                      # left out where there is nothing to build
    command = ["./build/@ROLE@"]          # an argument that begins with ./ lies in the folder
    [checkout_env]                        # variables of the role while the kit is not installed
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bridge
from bridge.ops.errors import Refused

# Of files, crates and C programs at once; the bridge itself would take more.
ROLE = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
TEMPLATE = "template"
ABOUT = "template.toml"


@dataclass(frozen=True)
class NewWorker:
    """What was written, and what there is to do with it."""

    role: str
    folder: Path
    build: tuple[str, ...]
    command: tuple[str, ...]
    env: Mapping[str, str]

    def settings(self) -> str:
        """The role's table for ringbridge.toml."""
        # A JSON string of these is a TOML string too.
        command = ", ".join(json.dumps(part, ensure_ascii=False) for part in self.command)
        lines = [f"[roles.{self.role}]", f"command = [{command}]"]
        if self.env:
            pairs = (f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in self.env.items())
            lines.append(f"env = {{ {', '.join(pairs)} }}")
        return "\n".join(lines) + "\n"


def kits_root() -> tuple[Path, bool]:
    """The folder with `workers` and `csrc` in it, and whether it is a checkout."""
    package = Path(bridge.__file__).parent
    installed = package / "kits"
    return (installed, False) if installed.is_dir() else (package.parent, True)


def languages() -> list[str]:
    """Those that have a template."""
    root, _ = kits_root()
    return sorted(about.parents[1].name for about in root.glob(f"workers/*/{TEMPLATE}/{ABOUT}"))


def create(language: str, role: str, folder: Path) -> NewWorker:
    """Write the worker of a role into `folder`. Raises Refused, with nothing written."""
    if not ROLE.match(role):
        raise Refused(f"{role!r} is no name for a worker: a to z, 0 to 9 and _, 63 at most")
    if language == "elixir":
        raise Refused("a worker in Elixir is made in its Mix project: mix ringbridge.gen.worker")
    if language not in languages():
        raise Refused(f"there is no kit for {language}; there are: {', '.join(languages())}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder} is there already; name another with --into")
    root, is_checkout = kits_root()
    template = root / "workers" / language / TEMPLATE
    words = {"@ROLE@": role, "@RINGBRIDGE@": str(root), "@PYTHON@": sys.executable}
    about = tomllib.loads(_filled((template / ABOUT).read_text(), words))
    for source in sorted(template.rglob("*")):
        if source.is_file() and source.name != ABOUT and "__pycache__" not in source.parts:
            target = folder / source.relative_to(template)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_filled(source.read_text(), words))
            target.chmod(source.stat().st_mode & 0o777)
    place = folder.absolute()
    return NewWorker(
        role=role,
        folder=place,
        build=tuple(about.get("build", ())),
        command=tuple(str(place / p[2:]) if p.startswith("./") else p for p in about["command"]),
        env=about.get("checkout_env", {}) if is_checkout else {},
    )


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
