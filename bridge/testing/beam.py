"""A real BEAM that a test drives: expressions in, their printed values out."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import trio

from bridge.testing.epmd_daemon import HOST

Language = Literal["elixir", "erlang"]

COOKIE = secrets.token_hex(16)  # of every cluster that this process makes

# Both drivers read one base64 line after the other and have it evaluated by one process, so that
# bindings and the mailbox live on, until an empty line has a new one begin. They halt when their
# input ends, or that process does: a BEAM never outlives whoever drives it.
_ELIXIR_DRIVER = """
defmodule Driver do
  @options [limit: :infinity, printable_limit: :infinity, custom_options: [sort_maps: true]]

  def read(evaluator) do
    with line when is_binary(line) <- IO.gets("") do
      line |> String.trim() |> obey(evaluator) |> read()
    end
  end

  def start do
    driver = self()
    spawn_monitor(fn -> evaluate(driver, []) end)
  end

  defp obey("", {pid, monitor}) do
    Process.demonitor(monitor, [:flush])
    Process.exit(pid, :kill)
    new = start()
    say("ok new")
    new
  end

  defp obey(code, {pid, monitor}) do
    send(pid, {__MODULE__, code})

    receive do
      {__MODULE__, :said} ->
        {pid, monitor}

      {:DOWN, ^monitor, :process, _, reason} ->
        IO.inspect(reason)
        System.halt(1)
    end
  end

  defp evaluate(driver, binding) do
    code = receive do: ({__MODULE__, code} -> Base.decode64!(code))

    {text, binding} =
      try do
        {value, binding} = Code.eval_string(code, binding)
        {"ok " <> inspect(value, @options), binding}
      catch
        kind, reason -> {"#{kind} " <> inspect(reason, limit: :infinity), binding}
      end
    say(text)
    send(driver, {__MODULE__, :said})
    evaluate(driver, binding)
  end

  def say(text), do: IO.puts("@@ " <> Base.encode64(text))
end
Driver.say("ok ready")
Driver.read(Driver.start())
System.halt(0)
"""

_ERLANG_DRIVER = """
Say = fun(Format, Arguments) ->
    Text = unicode:characters_to_binary(io_lib:format(Format, Arguments)),
    io:format("@@ ~s~n", [base64:encode(Text)])
end,
Driver = self(),
Evaluate = fun Evaluate(Bindings) ->
    receive {driver, Line} ->
        Code = unicode:characters_to_list(base64:decode(Line)),
        Next = try
            {ok, Tokens, _} = erl_scan:string(Code ++ "."),
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            {value, Value, New} = erl_eval:exprs(Expressions, Bindings),
            Say("ok ~0tp", [Value]),
            New
        catch
            Kind:Reason -> Say("~s ~0tp", [Kind, Reason]), Bindings
        end,
        Driver ! {driver, said},
        Evaluate(Next)
    end
end,
Start = fun() -> spawn_monitor(fun() -> Evaluate(erl_eval:new_bindings()) end) end,
Read = fun Read({Pid, Monitor}) ->
    case io:get_line("") of
        eof -> halt(0);
        Line -> case string:trim(Line) of
            "" ->
                demonitor(Monitor, [flush]),
                exit(Pid, kill),
                New = Start(),
                Say("ok new", []),
                Read(New);
            Code ->
                Pid ! {driver, Code},
                receive
                    {driver, said} -> Read({Pid, Monitor});
                    {'DOWN', Monitor, process, Pid, Reason} ->
                        io:format("~0tp~n", [Reason]),
                        halt(1)
                end
        end
    end
end,
Say("ok ready", []),
Read(Start()).
"""


class BeamError(Exception):
    """The expression raised, exited or threw: `kind` and the printed reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason


def missing_programs(language: Language = "elixir") -> list[str]:
    """What a `Beam` of that language needs and this machine has not."""
    needed = ["epmd", "erl"] + (["elixir"] if language == "elixir" else [])
    return [program for program in needed if shutil.which(program) is None]


class Beam:
    """One BEAM, a node of the cluster whose epmd listens on `epmd_port` of the loopback.

    It starts at once and in the background; `await beam.ready()` returns once it evaluates. Its
    cookie is in a file of a home of its own, since a command line can be read by every user of the
    machine. `interface` is the address it listens on, in Erlang's words; `arguments` are further
    ones of `erl`, as one string. A `host` without a dot makes a node of short names.
    """

    def __init__(
        self,
        alive: str,
        epmd_port: int,
        *,
        cookie: str = COOKIE,
        arguments: str = "",
        host: str = HOST,
        interface: str = "{127,0,0,1}",
        language: Language = "elixir",
    ) -> None:
        self.name = f"{alive}@{host}"
        self.output: list[str] = []  # what it printed beside its answers
        self._is_ready = False
        self._home = tempfile.mkdtemp(prefix="ringbridge-beam-")
        cookie_file = Path(self._home, ".erlang.cookie")
        cookie_file.write_text(cookie)
        cookie_file.chmod(0o400)
        style = "-name" if {".", ":"} & set(host) else "-sname"
        flags = f"-kernel inet_dist_use_interface {interface} {style} {self.name} {arguments}"
        if language == "elixir":
            command = ["elixir", "--erl", flags, "-e", _ELIXIR_DRIVER]
        else:
            command = ["erl", "-noshell", *flags.split(), "-eval", _ERLANG_DRIVER]
        self._process = subprocess.Popen(
            command,
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

    @property
    def pid(self) -> int:
        """Of the BEAM's operating system process."""
        return self._process.pid

    async def ready(self) -> Beam:
        """Itself, once it evaluates. Raises BrokenResourceError with its last words if it ended."""
        if not self._is_ready:
            await self._answer()
            self._is_ready = True
        return self

    async def evaluate(self, code: str) -> str:
        """The printed value of the expression `code`: `inspect` of Elixir, `~0tp` of Erlang.

        Elixir prints a map in the order of its keys, also from OTP 26 on, where it is no map's own.
        Raises BeamError when it raises, BrokenResourceError when the BEAM has ended. One at a time.
        """
        return await self._ask(base64.b64encode(code.encode()))

    async def anew(self) -> Beam:
        """Itself, with a new process that evaluates: no bindings, messages, links or monitors.

        What is on its way to the old one reaches nobody. Raises BrokenResourceError when the BEAM
        has ended.
        """
        await self._ask(b"")
        return self

    def kill(self) -> None:
        """SIGKILL; returns when it has ended."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it and remove its home."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self._home, ignore_errors=True)

    async def _ask(self, line: bytes) -> str:
        await self.ready()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return await self._answer()

    async def _answer(self) -> str:
        assert self._process.stdout is not None
        while True:
            line = await trio.to_thread.run_sync(
                self._process.stdout.readline, abandon_on_cancel=True
            )
            if not line:
                raise self._ended()
            if line.startswith(b"@@ "):
                kind, _, text = base64.b64decode(line[3:]).decode().partition(" ")
                if kind != "ok":
                    raise BeamError(kind, text)
                return text
            self.output.append(line.decode(errors="replace"))

    def _ended(self) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(f"{self.name} ended: {''.join(self.output)[-2000:]}")
