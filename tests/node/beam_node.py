"""A real BEAM that a test drives: Elixir expressions in, their inspected values out."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import trio

HOST = "127.0.0.1"
COOKIE = "tests-only-cookie-0123456789"

# Evaluates one base64 line after the other in one process, so bindings and the mailbox live on.
DRIVER = """
loop = fn loop, binding ->
  case IO.gets("") do
    :eof -> System.halt(0)
    line ->
      code = line |> String.trim() |> Base.decode64!()
      {text, binding} =
        try do
          {value, binding} = Code.eval_string(code, binding)
          {"ok " <> inspect(value, limit: :infinity, printable_limit: :infinity), binding}
        catch
          kind, reason -> {"#{kind} " <> inspect(reason, limit: :infinity), binding}
        end
      IO.puts("@@ " <> Base.encode64(text))
      loop.(loop, binding)
  end
end
IO.puts("@@ " <> Base.encode64("ok ready"))
loop.(loop, [])
"""


class BeamError(Exception):
    """The expression raised, exited or threw: `kind` and the inspected reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason


class Beam:
    """One BEAM. Start it with `start`, end it with `close`; `evaluate` runs Elixir in it."""

    def __init__(
        self,
        alive: str,
        epmd_port: int,
        *,
        cookie: str = COOKIE,
        arguments: str = "",
        host: str = HOST,
        interface: str = "{127,0,0,1}",
    ) -> None:
        self.name = f"{alive}@{host}"
        self._home = tempfile.mkdtemp(prefix="ringbridge-beam-")
        cookie_file = Path(self._home, ".erlang.cookie")
        cookie_file.write_text(cookie)
        cookie_file.chmod(0o400)
        style = "-name" if {".", ":"} & set(host) else "-sname"
        flags = f"-kernel inet_dist_use_interface {interface} {style} {self.name} {arguments}"
        self._process = subprocess.Popen(
            ["elixir", "--erl", flags, "-e", DRIVER],
            env={
                **os.environ,
                "HOME": self._home,
                "ERL_EPMD_PORT": str(epmd_port),
                "ERL_CRASH_DUMP_BYTES": "0",
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> Beam:
        assert await self._answer() == "ready"
        return self

    async def evaluate(self, code: str) -> str:
        """The inspected value of the Elixir expression `code`. Raises BeamError."""
        assert self._process.stdin is not None
        self._process.stdin.write(base64.b64encode(code.encode()) + b"\n")
        self._process.stdin.flush()
        return await self._answer()

    async def _answer(self) -> str:
        assert self._process.stdout is not None
        while True:
            line = await trio.to_thread.run_sync(
                self._process.stdout.readline, abandon_on_cancel=True
            )
            if not line:
                raise AssertionError(f"{self.name} ended: {''.join(self.output)[-2000:]}")
            if line.startswith(b"@@ "):
                kind, _, text = base64.b64decode(line[3:]).decode().partition(" ")
                if kind != "ok":
                    raise BeamError(kind, text)
                return text
            self.output.append(line.decode(errors="replace"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self._home, ignore_errors=True)


class Epmd:
    """A private epmd on a private port; it ends with `close`."""

    def __init__(self, host: str | None = HOST) -> None:
        self._addresses = ["-address", host] if host else []  # none: every address of this host
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._process = subprocess.Popen(
            ["epmd", "-port", str(self.port), *self._addresses],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((HOST, self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < give_up, "epmd does not listen"
                assert self._process.poll() is None, "epmd ended"
            else:
                return

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
