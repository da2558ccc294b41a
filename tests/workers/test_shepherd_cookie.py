"""No worker reads the cluster's cookie: tried from inside a hostile worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shepherd_support import read_all, started

from bridge.workers import _landlock
from bridge.workers._landlock import Rules

pytestmark = pytest.mark.skipif(not _landlock.available(), reason="no Landlock in this kernel")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a cookie, an innocent file and a project."""
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    (home / ".erlang.cookie").write_text("swordfish")
    (home / "notes").write_text("innocent")
    (home / "project" / "data").write_text("innocent")
    monkeypatch.setenv("HOME", str(home))
    return home


async def run(script: str, **options: object) -> str:
    """What a worker's shell says, errors included."""
    async with started("sh", "-c", f"exec 2>&1; {script}", **options) as (shepherd, _):
        assert shepherd.isolation.landlock == options.get("hide_cookie", True)
        out = shepherd.take_stdout()
        said = await read_all(out)
        os.close(out)
        await shepherd.wait()
    return said


async def test_a_worker_cannot_read_the_cookie_but_what_lies_beside_it(home: Path) -> None:
    said = await run(f"cat {home}/notes {home}/project/data; cat {home}/.erlang.cookie")
    assert said.startswith("innocentinnocent")
    assert "Permission denied" in said
    assert "swordfish" not in said


async def test_without_the_rule_it_could(home: Path) -> None:
    """So the others prove something."""
    assert await run(f"cat {home}/.erlang.cookie", hide_cookie=False) == "swordfish"


@pytest.mark.parametrize(
    "attempt",
    [
        "cat /proc/self/root{home}/.erlang.cookie",
        "cd {home}; cat .erlang.cookie",
        "cat {home}/project/../.erlang.cookie",
        "ln -s {home}/.erlang.cookie {home}/project/soft; cat {home}/project/soft",
        "ln {home}/.erlang.cookie {home}/project/hard; cat {home}/project/hard",
        "mv {home}/.erlang.cookie {home}/project/moved; cat {home}/project/moved",
        "mv {home}/.erlang.cookie {home}/notes; cat {home}/notes",
        "cp {home}/.erlang.cookie {home}/project/copy; cat {home}/project/copy",
        "mkdir {home}/new; mv {home}/.erlang.cookie {home}/new/c; cat {home}/new/c",
        "cd {home}; unshare -Urm sh -c 'mount --bind . project; cat project/.erlang.cookie'",
        "cat /proc/{bridge}/root{home}/.erlang.cookie",
        "tr '\\0' '\\n' < /proc/{bridge}/environ; echo; cat /proc/{bridge}/mem | head -c 1",
    ],
)
async def test_no_trick_reads_it(home: Path, attempt: str) -> None:
    said = await run(attempt.format(home=home, bridge=os.getpid()))
    assert "swordfish" not in said
    assert "denied" in said or "not permitted" in said or "cross-device" in said.lower()


async def test_the_environment_of_the_bridge_is_closed(home: Path) -> None:
    assert "PATH=" in await run("cat /proc/self/environ")  # its own it may read
    assert "PATH=" not in await run(f"cat /proc/{os.getpid()}/environ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root's workers could have any")
async def test_a_worker_of_root_has_no_capability_that_reaches_into_others(home: Path) -> None:
    said = await run("grep CapEff /proc/self/status")
    held = int(said.split()[1], 16)
    for capability in (2, 5, 16, 17, 19, 21, 27, 38, 39):  # from DAC_READ_SEARCH to PERFMON, BPF
        assert not held >> capability & 1, capability
    assert held >> 1 & 1  # CAP_DAC_OVERRIDE: files are still root's


async def test_a_cookie_that_is_written_later_is_hidden_too(home: Path) -> None:
    (home / ".erlang.cookie").unlink()
    script = (
        f"exec 2>&1; read go; cat {home}/.erlang.cookie;"
        f"echo innocent > {home}/project/late; cat {home}/project/late"
    )
    async with started("sh", "-c", script) as (shepherd, _):
        (home / ".erlang.cookie").write_text("swordfish")
        stdin, out = shepherd.take_stdin(), shepherd.take_stdout()
        os.write(stdin, b"go\n")
        os.close(stdin)
        said = await read_all(out)
        os.close(out)
    assert "swordfish" not in said
    assert "denied" in said
    assert said.endswith("innocent\n")


async def test_a_cookie_file_of_ones_own_can_be_hidden(tmp_path: Path) -> None:
    secret, other = tmp_path / "etc" / "cookie", tmp_path / "etc" / "other"
    secret.parent.mkdir()
    secret.write_text("swordfish")
    other.write_text("innocent")
    said = await run(f"cat {other} {secret}", hide=(str(secret),))
    assert said.startswith("innocent")
    assert "swordfish" not in said


async def test_a_worker_still_renames_between_its_own_directories(home: Path) -> None:
    script = f"mkdir {home}/project/a && mv {home}/project/data {home}/project/a/ && echo moved"
    assert await run(script) == "moved\n"


def test_the_usual_places_of_a_cookie() -> None:
    files = _landlock.cookie_files({"HOME": "/h", "XDG_CONFIG_HOME": "/x"})
    assert {
        "/h/.erlang.cookie",
        "/h/.config/erlang/.erlang.cookie",
        "/x/erlang/.erlang.cookie",
    } <= files


def test_a_ruleset_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    os.close(_landlock.ruleset(Rules(frozenset({"/nowhere/cookie", "/etc/hostname"}))))
    assert os.listdir("/proc/self/fd") == before
