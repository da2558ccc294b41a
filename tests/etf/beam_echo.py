"""A BEAM that says what it makes of our bytes (term_echo.erl); it ends when its stdin does."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("term_echo.erl")


def releases() -> list[str]:
    """The erl on PATH, and those that integration/matrix has unpacked under build/otp."""
    found = [shutil.which("erl")]
    found += sorted(map(str, (ROOT / "build/otp").glob("*/usr/bin/erl")))
    return [erl for erl in found if erl]


class Refused(Exception):
    """The BEAM's binary_to_term raised badarg."""


class Echo:
    def __init__(self, to_beam: IO[bytes], from_beam: IO[bytes]) -> None:
        self._to_beam = to_beam
        self._from_beam = from_beam

    def ask(self, request: bytes) -> bytes:
        self._to_beam.write(len(request).to_bytes(4) + request)
        self._to_beam.flush()
        size = int.from_bytes(self._read(4))
        answer = self._read(size)
        if answer[:1] != b"o":
            raise Refused
        return answer[1:]

    def echo(self, data: bytes) -> bytes:
        """term_to_binary(binary_to_term(data)). Raises Refused."""
        return self.ask(b"e" + data)

    def same(self, left: bytes, right: bytes) -> bool:
        """Are the two terms =:= ?"""
        return self.ask(b"=" + len(left).to_bytes(4) + left + right) == b"\x01"

    def random_term(self, seed: int) -> bytes:
        return self.ask(b"r" + seed.to_bytes(4))

    def _read(self, size: int) -> bytes:
        data = self._from_beam.read(size)
        if len(data) < size:
            raise EOFError("the BEAM has ended")
        return data


@contextmanager
def beam(erl: str, folder: Path) -> Iterator[Echo]:
    """An Echo on a BEAM of its own, compiled into `folder`."""
    erlc = str(Path(erl).with_name("erlc"))
    subprocess.run([erlc, "-o", folder, SOURCE], check=True, timeout=60)
    command = [erl, "-noinput", "-boot", "start_clean", "-pa", str(folder)]
    command += ["-kernel", "logger_level", "critical", "-s", "term_echo", "main"]
    environment = {**os.environ, "ERL_CRASH_DUMP": "/dev/null"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield Echo(child.stdin, child.stdout)
        finally:
            child.stdin.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
