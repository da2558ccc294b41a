"""A newcomer's first five minutes: what README.md and docs/elixir.md say to type, typed into a real
iex on a terminal, and what it prints beside what the page prints.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from serve_support import BIN, ROOT, Serving, serving
from terminal_support import Iex, Terminal

from bridge.testing import EpmdDaemon

SETTINGS = (ROOT / "ringbridge.toml").read_text().replace('"build/bin/', f'"{BIN}/')
BUILT = Path(os.environ.get("MIX_BUILD_PATH", ROOT / "build" / "mix" / "dev"))
EBIN = BUILT / "lib" / "ringbridge" / "ebin"
# A line that is typed and what stands below it, up to the next one or an empty line.
TYPED = re.compile(r"^    iex\([^)\n]*\)\d*> (.*)\n((?:    (?!iex[(>]).*\n)*)", re.MULTILINE)
ASKED = re.compile(r"^    iex> (.*)\n    (?!iex> )(.*)$", re.MULTILINE)

pytestmark = [
    pytest.mark.beam,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("iex") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-worldgen").exists(), reason="the workers are not built"),
    pytest.mark.skipif(not EBIN.exists(), reason="the Elixir client is not built"),
]


def alike(text: str) -> str:
    """The text without what is another at each run: numbers that machine or hour decide."""
    for what, instead in (
        (r"#PID<[\d.]+>", "PID"),
        (r"ringbridge-\d+-[0-9a-f]+@", "ringbridge-RUN@"),
        (r"\b[\d,.]+ (?:us|ms|s)\b", "TIME"),
        (r"(job|worker|queue_us|run_us|OS pid|process):? \d+", r"\1 N"),
        (r"^ *\d+(?= |$)", "N"),
        (r"(?<= )\d+(?=  )", "N"),
        (r"-(?=  |$)", "N"),
        (r"\s+", " "),
    ):
        text = re.sub(what, instead, text, flags=re.MULTILINE)
    # The order of a map's keys is that of its release (OTP 26 changed it).
    text = re.sub(r"%\{([^{}]*)\}", lambda map_: str(sorted(map_[1].split(", "))), text)
    return text.strip()


def steps(page: str, heading: str) -> list[tuple[str, str]]:
    """What a section says to type, each with what is printed then."""
    text = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [
        (typed, re.sub(r"^    ", "", shown, flags=re.M)) for typed, shown in TYPED.findall(text)
    ]


@asynccontextmanager
async def the_bridge(epmd: EpmdDaemon, folder: Path, settings: str) -> AsyncIterator[Serving]:
    """As `ringbridge serve` of the README: it makes a cookie where there is none."""
    async with serving(epmd, folder, settings=settings, cookie_in_environment=False) as bridge:
        await bridge.wait_workers(4)
        yield bridge


@contextmanager
def iex(epmd: EpmdDaemon, home: Path, *arguments: str) -> Iterator[Iex]:
    shell = Iex(["iex", *arguments], environment(epmd, home), cwd=home)
    try:
        shell.start()
        yield shell
    finally:
        shell.close()


def environment(epmd: EpmdDaemon, home: Path) -> dict[str, str]:
    names = ("PATH", "MIX_BUILD_PATH", "MIX_HOME", "HEX_HOME")
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ERL_EPMD_PORT": str(epmd.port),
    }


# Said once by an instance, whenever it has found out.
LANE = re.compile(r"^\n?[\d:.]+ \[info\] .* shared memory to .*\n*", re.MULTILINE)


async def typed(shell: Iex, line: str) -> str:
    return LANE.sub("", await trio.to_thread.run_sync(shell.ask, line))


def test_the_pages_have_what_is_typed_here() -> None:
    page = (ROOT / "README.md").read_text()
    assert len(steps(page, "A first call, from a plain iex")) == 9
    assert len(steps(page, "An Erlang node like any other")) == 2
    page = (ROOT / "docs" / "elixir.md").read_text()
    assert len(steps(page, "From iex")) >= 8
    assert len(ASKED.findall(page)) >= 8


async def test_the_readme_s_first_call(epmd: EpmdDaemon, tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text()
    session = [
        *steps(page, "A first call, from a plain iex"),
        *steps(page, "An Erlang node like any other"),
    ]
    async with the_bridge(epmd, tmp_path, SETTINGS):
        with iex(epmd, tmp_path) as shell:
            for line, shown in session:
                answer = await typed(shell, line)
                if "which_children" in line:  # the order of the workers is theirs
                    answer, shown = (re.sub(r"\d", "0", text) for text in (answer, shown))
                assert alike(answer) == alike(shown), line


async def test_the_client_s_page(epmd: EpmdDaemon, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "elixir.md").read_text()
    primes = f'\n[roles.primes]\ncommand = ["{BIN}/rb-primes"]\n'
    async with the_bridge(epmd, tmp_path, SETTINGS + primes):
        with iex(epmd, tmp_path, "-pa", str(EBIN)) as shell:
            for line, shown in ASKED.findall(page):
                assert alike(await typed(shell, line)) == alike(shown), line


async def test_looking_from_iex(epmd: EpmdDaemon, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "elixir.md").read_text()
    async with the_bridge(epmd, tmp_path, SETTINGS):
        with iex(epmd, tmp_path, "-pa", str(EBIN)) as shell:
            for line, shown in steps(page, "From iex"):
                assert alike(await typed(shell, line)) == alike(shown), line


async def test_inspect_draws_over_its_page_and_outlives_the_bridge(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    env = {**environment(epmd, tmp_path), "MIX_ENV": "dev"}
    screen: Terminal | None = None
    try:
        async with the_bridge(epmd, tmp_path, SETTINGS):
            screen = Terminal(
                ["mix", "ipc.inspect", "--watch", "200"],
                env,
                cwd=ROOT,
                columns=100,
                rows=18,
                kind="xterm-256color",
            )
            await trio.to_thread.run_sync(
                screen.read_until, r"(?s)now: [\d.]+ answers/s.*lines more"
            )
        gone = len(screen.raw)
        await trio.to_thread.run_sync(screen.read_until, "cannot be reached any more", gone)
        (tmp_path / "serve.log").unlink()
        async with the_bridge(epmd, tmp_path, SETTINGS) as bridge:
            await trio.to_thread.run_sync(
                screen.read_until, f"process {bridge.pid}, up (?s:.*)now: [\\d.]+ answers", gone
            )
            screen.type("q")
            assert await trio.to_thread.run_sync(screen.wait_end) == 0
    finally:
        if screen is not None:
            screen.close()
    # Cleared once; then each page from the corner, over the last one, in the terminal's size.
    first, *pages = screen.raw.split("\x1b[H")
    assert first.endswith("\x1b[2J")
    assert screen.raw.count("\x1b[2J") == 1
    assert len(pages) > 3
    for page in pages[:-1]:
        lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", page).split("\n")
        assert len(lines) <= 18
        assert max(map(len, lines)) <= 100
    assert "\x1b[32mrunning\x1b[0m" in screen.raw
