"""A program on a terminal of its own (a pty), typed into and read as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# What a shell writes beside its text: styles, and moves of the cursor (ECMA-48 CSI), titles (OSC).
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r(?=[^\n])")
PATIENCE_S = 90.0


class Terminal:
    """A terminal of `columns` x `rows`, and the program that it is the controlling one of."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path,
        columns: int = 400,
        rows: int = 50,
        kind: str = "dumb",
    ) -> None:
        self._end, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            # A session of its own, whose terminal this is: the program ends when it is closed.
            ["setsid", "--ctty", "--wait", *command],
            env={**env, "TERM": kind},
            cwd=cwd,
            stdin=end,
            stdout=end,
            stderr=end,
        )
        os.close(end)
        self.raw = ""  # all that was written, as it came

    def type(self, line: str) -> None:
        os.write(self._end, line.encode() + b"\n")

    def read_until(self, pattern: str, since: int = 0, within_s: float = PATIENCE_S) -> str:
        """What was written from `since` (of `raw`) to the end of the match, without controls."""
        ends = time.monotonic() + within_s
        wanted = re.compile(pattern)
        while True:
            text = plain(self.raw[since:])
            if found := wanted.search(text):
                return text[: found.end()]
            if time.monotonic() > ends or not self._read(ends):
                raise AssertionError(f"never seen: {pattern}\n{text}")

    def _read(self, ends: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], max(0.0, ends - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def wait_end(self, within_s: float = PATIENCE_S) -> int:
        """The exit status; what is still written is read."""
        ends = time.monotonic() + within_s
        while self._read(ends):
            pass
        return self._process.wait(within_s)

    def close(self) -> None:
        """Hang up, and see the program end."""
        os.close(self._end)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Iex(Terminal):
    """iex on a terminal."""

    # iex(1)>, or iex(me@127.0.0.1)2> once the VM has a name.
    PROMPT = r"(?:^|\n)iex\([^)\n]*\)(?:\d+)?> $"

    def start(self) -> None:
        self.read_until(self.PROMPT)

    def ask(self, line: str) -> str:
        """What iex prints when this is typed."""
        since = len(self.raw)
        self.type(line)
        text = self.read_until(self.PROMPT, since).replace("\r\n", "\n")
        # What is typed before the shell reads is echoed twice: by the terminal, and by the shell.
        echo = re.compile(rf"\n*(iex\([^)\n]*\)\d*> )?{re.escape(line)} *\n")
        assert echo.match(text), (line, text)
        while echoed := echo.match(text):
            text = text[echoed.end() :]
        return text.rpartition("iex(")[0].rstrip("\n")


def plain(text: str) -> str:
    """Text as it is read, without what a terminal obeys."""
    return _CONTROL.sub("", text)
