"""Facts that stand in more than one file of the project and must agree."""

import re
import tomllib
from pathlib import Path

import bridge

ROOT = Path(__file__).parent.parent


def test_python_and_elixir_have_one_version() -> None:
    match = re.search(r'@version "(.+)"', (ROOT / "mix.exs").read_text())
    assert match is not None
    assert match[1] == bridge.__version__


def test_the_lock_names_every_dependency_by_hash_and_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        name = re.split(r"[><=\[ ]", requirement)[0].replace("_", "-").lower()
        assert re.search(rf"^{name}==\S+.*\\\n +--hash=sha256:", lock, re.MULTILINE), requirement
