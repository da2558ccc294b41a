"""`ringbridge new worker`: what each template makes is built, served by a bridge, and called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio
from serve_support import BIN, ask, serving
from test_cli import ringbridge

from bridge.ops import new_worker
from bridge.ops.errors import Refused
from bridge.testing import Beam, EpmdDaemon

ROOT = Path(__file__).parents[2]


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
@pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the core is not built")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("language", new_worker.languages())
async def test_the_worker_of_each_template_answers_a_call(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, language: str
) -> None:
    role = f"new_{language}"
    made = new_worker.create(language, role, tmp_path / "folder of mine")
    if made.build:
        if shutil.which(made.build[0]) is None:
            pytest.skip(f"{made.build[0]} is not installed")
        # What Zig compiles once for all programs lies there already; a debug build takes a second.
        cache = str(ROOT / "build" / "workers-zig" / "cache" / "global")
        env = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "FLAGS": "-O debug"}
        await trio.run_process(made.build, cwd=made.folder, env=env)
    settings = made.settings()
    async with serving(epmd, tmp_path, alive=f"new_{language}", settings=settings) as bridge:

        async def submit(payload: str) -> str:
            request = f"{{:submit, :{role}, {payload}}}"
            return await ask(beam, f"GenServer.call({bridge.target()}, {request})")

        assert await submit('"hello"') == '{:ok, "HELLO"}'
        assert await submit('""') == '{:ok, ""}'
        big = 'String.duplicate("ab1", 100_000)'
        assert await ask(
            beam,
            f"GenServer.call({bridge.target()}, {{:submit, :{role}, {big}}}) == "
            f"{{:ok, String.upcase({big})}}",
        ) == ("true")


@pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the shepherd is not built")
def test_a_wheel_has_the_kits_that_it_writes_workers_for(tmp_path: Path) -> None:
    built = tmp_path / "wheel"
    setup = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run([*setup, "build_py", "-d", str(built)], cwd=ROOT, check=True)
    make = """
from pathlib import Path
from bridge.ops import new_worker
for language in new_worker.languages():
    made = new_worker.create(language, "paint", Path(language))
    print(language, made.env, (made.folder / "README.md").exists())
"""
    told = subprocess.run(
        [sys.executable, "-c", make],
        cwd=tmp_path,
        env={"PYTHONPATH": str(built)},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [f"{language} {{}} True" for language in new_worker.languages()]
    assert told.stdout.splitlines() == lines
    assert (built / "bridge" / "kits" / "csrc" / "include" / "ringbridge" / "layout.h").exists()
    assert (built / "ringbridge_worker" / "py.typed").exists()


def test_the_command_says_how_to_build_serve_and_call_it(tmp_path: Path) -> None:
    done = ringbridge("new", "worker", "--lang", "c", "--role", "paint", cwd=tmp_path)
    assert done.returncode == 0
    assert f"cd {tmp_path}/paint && make" in done.stdout
    assert f'command = ["{tmp_path}/paint/build/paint"]' in done.stdout
    assert '{:submit, :paint, "hello"}' in done.stdout
    again = ringbridge("new", "worker", "--lang", "c", "--role", "paint", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.startswith("ringbridge: paint is there already")


def test_the_settings_alone_are_for_programs(tmp_path: Path) -> None:
    done = ringbridge(
        *("new", "worker", "--lang", "c", "--role", "paint", "--settings-only"), cwd=tmp_path
    )
    assert done.returncode == 0
    command = [f"{tmp_path}/paint/build/paint"]
    assert tomllib.loads(done.stdout) == {"roles": {"paint": {"command": command}}}
    assert (tmp_path / "paint" / "main.c").exists()


@pytest.mark.parametrize("language", new_worker.languages())
def test_nothing_is_left_to_fill_in(tmp_path: Path, language: str) -> None:
    made = new_worker.create(language, "paint", tmp_path / "paint")
    text = "".join(p.read_text() for p in made.folder.rglob("*") if p.is_file())
    for word in ("@ROLE@", "@RINGBRIDGE@", "@PYTHON@"):
        assert word not in text + made.settings()
    assert "paint" in text
    assert not (made.folder / new_worker.ABOUT).exists()
    assert tomllib.loads(made.settings())["roles"]["paint"]["command"] == list(made.command)


@pytest.mark.parametrize("role", ["", "Paint", "1st", "a-b", "../up", "a b", "x" * 64])
def test_a_name_that_no_kit_could_take_is_refused(tmp_path: Path, role: str) -> None:
    with pytest.raises(Refused, match="is no name for a worker"):
        new_worker.create("c", role, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_language_without_a_kit_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no kit for perl; there are: c,.*python"):
        new_worker.create("perl", "paint", tmp_path / "new")


def test_a_worker_in_elixir_is_mixs_affair(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"mix ringbridge\.gen\.worker"):
        new_worker.create("elixir", "paint", tmp_path / "new")
    assert not (tmp_path / "new").exists()
