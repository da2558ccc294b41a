"""`ringbridge serve` with [tls]: a TLS BEAM has jobs done, `status` and `doctor` reach it, SIGHUP
reads the certificates again, and no worker can read the key.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from serve_support import ROOT, SETTINGS, Serving, ask, serving
from tls_support import Authority, make_certificates

from bridge.config import parse
from bridge.ops.certificates import examine
from bridge.ops.finding import Finding
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

TLS = '[tls]\ncert = "node.pem"\nkey = "node.key"\nca = "ca.pem"\n'
ROLES = '[roles.echo]\ncommand = ["sh"]\n'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_certificates(tmp_path)


def ringbridge(epmd: EpmdDaemon, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from bridge.cli import main; main()", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "RINGBRIDGE_COOKIE": COOKIE,
            "ERL_EPMD_PORT": str(epmd.port),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def hangs_up(bridge: Serving) -> None:
    """SIGHUP, and wait until it has been heard."""
    heard = len(bridge.logs("certificates reloaded"))
    bridge.process.send_signal(signal.SIGHUP)
    await bridge.wait_log("certificates reloaded", heard + 1)


@pytest.mark.beam
async def test_jobs_status_and_a_reload(
    epmd: EpmdDaemon, authority: Authority, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="tlsbridge", settings=SETTINGS + TLS) as bridge:
        beam = Beam("tlscaller", epmd.port, arguments=authority.beam())
        try:
            submit = f"GenServer.call({bridge.target()}, {{:submit, :echo, %s}}) |> elem(1)"
            assert await ask(beam, submit % '"over tls"') == '"over tls"'
            blob = f"byte_size({submit % ':binary.copy(<<7>>, 1_000_000)'})"
            assert await ask(beam, blob) == "1000000"

            arguments = ("status", "--name", bridge.name, "--interval", "0.1", "--json")
            done = await trio.to_thread.run_sync(ringbridge, epmd, tmp_path, *arguments)
            assert done.returncode == 0, done.stderr
            assert beam.name in json.loads(done.stdout)["connections"]

            for kind in ("pem", "key"):
                shutil.copy(tmp_path / f"app.{kind}", tmp_path / f"node.{kind}")
            await hangs_up(bridge)
            assert bridge.logs("certificates reloaded")[-1]["subject"] == "CN = app"
            assert await ask(beam, submit % '"still"') == '"still"'

            # Certificates that cannot be used refuse the whole of a reload.
            (tmp_path / "ca.pem").write_text("nonsense")
            (tmp_path / "ringbridge.toml").write_text(SETTINGS.replace("2_000", "3_000") + TLS)
            bridge.process.send_signal(signal.SIGHUP)
            line = await bridge.wait_log("settings not reloaded, nothing has changed")
            assert "tls.ca" in line["why"]
            registry = bridge.target("Ringbridge.WorkerRegistry")
            change = f'GenServer.call({registry}, {{:configure, "node.drain_ms", 2_000}})'
            assert await ask(beam, change) == "{:ok, []}"
        finally:
            beam.close()
        assert await bridge.terminate() == 0


@pytest.mark.beam
async def test_the_first_call_of_each_connection_is_answered(
    epmd: EpmdDaemon, authority: Authority, tmp_path: Path
) -> None:
    """It often comes before the relay has the connection."""
    async with serving(epmd, tmp_path, alive="tlsfirst", settings=SETTINGS + TLS) as bridge:
        beam = Beam("tlsfirstcaller", epmd.port, arguments=authority.beam())
        again = f"""
        for _ <- 1..60, uniq: true do
          true = Node.connect(:'{bridge.name}')
          {{:ok, _}} = GenServer.call({bridge.target()}, :stats, 2_000)
          Node.disconnect(:'{bridge.name}')
        end
        """
        try:
            assert await ask(beam, again) == "[true]"
        finally:
            beam.close()


@pytest.mark.beam
async def test_status_without_tls_says_what_is_the_matter(
    epmd: EpmdDaemon, authority: Authority, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="tlsonly", settings=SETTINGS + TLS) as bridge:
        plain = tmp_path / "plain.toml"
        plain.write_text(SETTINGS)
        arguments = ("status", "--name", bridge.name, "--config", str(plain))
        done = await trio.to_thread.run_sync(ringbridge, epmd, tmp_path, *arguments)
        assert done.returncode == 1
        assert "the peer speaks TLS and this node does not" in done.stderr
        refused = await bridge.wait_log("peer refused")
        assert "this node speaks TLS and the peer does not" in refused["rule"]


@pytest.mark.beam
async def test_no_worker_can_read_the_key(
    epmd: EpmdDaemon, authority: Authority, tmp_path: Path
) -> None:
    """As the cookie: the role's program tries, and tells."""
    key = tmp_path / "node.key"
    tells = tmp_path / "tells"
    script = (
        f"cat {key} >/dev/null 2>&1 && echo READ || echo refused; "
        f"cat {tells} >/dev/null && echo other"
    )
    tells.write_text("x")
    settings = f"{TLS}[roles.reader]\ncommand = ['sh', '-c', '{script}; sleep 60']\n"
    async with serving(epmd, tmp_path, alive="tlskey", settings=settings) as bridge:
        with trio.fail_after(60):
            while "other" not in (text := bridge.log_file.read_text()):
                await trio.lowlevel.checkpoint()
        assert "refused" in text
        assert "READ" not in text


def test_a_file_that_is_missing_stops_serve_in_one_line(epmd: EpmdDaemon, tmp_path: Path) -> None:
    (tmp_path / "ringbridge.toml").write_text(TLS + ROLES)
    done = ringbridge(epmd, tmp_path, "serve", "--name", f"tlsnever@{HOST}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"ringbridge.toml: tls.cert: {tmp_path}/node.pem holds no certificate" in done.stderr
    assert "No such file" in done.stderr
    assert "docs/tls.md" in done.stderr


# ---- doctor


def found(folder: Path, settings: str = TLS, name: str = f"bridge@{HOST}") -> list[Finding]:
    tls = parse(settings + ROLES, folder / "ringbridge.toml").tls_config()
    assert tls is not None
    return list(examine(tls, name))


def bad(findings: list[Finding]) -> list[tuple[str, str, bool]]:
    assert all(finding.mend for finding in findings if not finding.ok)
    return [(f.name, f.found, f.must) for f in findings if not f.ok]


def test_the_doctor_finds_good_certificates_well(authority: Authority, tmp_path: Path) -> None:
    findings = found(tmp_path)
    assert bad(findings) == []
    assert "CN = node, names IP:127.0.0.1" in findings[0].found


@pytest.mark.parametrize(
    ("settings", "name", "title", "words", "must"),
    [
        (TLS.replace("node.key", "app.key"), "", "certificates", "is not the key of", True),
        (TLS.replace("node.", "expired."), "", "certificate's validity", "expired at", True),
        (TLS.replace("node.", "stranger."), "", "certificate's CA", "not signed by", False),
        (TLS, "bridge@elsewhere", "certificate's host", "does not name elsewhere", False),
        (TLS.replace("ca.pem", "none.pem"), "", "certificates", "ca: ", True),
    ],
)
def test_the_doctor_names_what_is_bad(
    authority: Authority,
    tmp_path: Path,
    settings: str,
    name: str,
    title: str,
    words: str,
    must: bool,
) -> None:
    ill = {
        what: (text, vital)
        for what, text, vital in bad(found(tmp_path, settings, name or f"a@{HOST}"))
    }
    assert title in ill
    text, vital = ill[title]
    assert words in text
    assert vital is must


def test_the_doctor_minds_a_key_that_others_can_read(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "node.key").chmod(0o644)
    [(title, words, must)] = bad(found(tmp_path))
    assert (title, must) == ("key", False)
    assert "mode 0644" in words
