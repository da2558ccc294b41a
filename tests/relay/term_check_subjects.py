"""The two judges of test_term_check_against_beam.py: rb_term_check by ctypes, and a BEAM."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


def releases() -> list[str]:
    """The erl on PATH, and those that integration/matrix has unpacked under build/otp."""
    found = [shutil.which("erl")]
    found += sorted(map(str, (ROOT / "build/otp").glob("*/usr/bin/erl")))
    return [erl for erl in found if erl]


class Slice(ctypes.Structure):
    _fields_ = (("at", ctypes.c_char_p), ("size", ctypes.c_size_t))


class Rules(ctypes.Structure):
    _fields_ = (
        ("depth_max", ctypes.c_uint32),
        ("terms_max", ctypes.c_uint64),
        ("atoms", ctypes.POINTER(Slice)),
        ("atoms_count", ctypes.c_uint32),
    )


class Budget(ctypes.Structure):
    _fields_ = (
        ("left", ctypes.c_uint32),
        ("known", ctypes.c_void_p),
        ("known_bytes", ctypes.c_size_t),
    )


class Check:
    """rb_term_check of csrc/core, compiled by itself into `folder`."""

    def __init__(self, folder: Path) -> None:
        library = folder / "term_check.so"
        sources = sorted((ROOT / "csrc/core").glob("term*.c"))
        command = ["cc", "-std=gnu99", "-O2", "-shared", "-fPIC", f"-I{ROOT}/csrc/include"]
        subprocess.run([*command, "-o", library, *sources], check=True, timeout=60)
        self._library = ctypes.CDLL(str(library))
        self._check = self._library.rb_term_check
        self._check.argtypes = [Slice, Slice, *[ctypes.c_void_p] * 3]
        self._rules = Rules(depth_max=1000, terms_max=10_000_000)

    def verdict(self, answer: bytes, request: bytes, new_atoms: int = 8) -> str | None:
        """The rule that the answer breaks; None: it is accepted."""
        budget, rule = Budget(left=new_atoms), ctypes.c_char_p()
        arguments = (ctypes.byref(self._rules), ctypes.byref(budget), ctypes.byref(rule))
        slices = Slice(answer, len(answer)), Slice(request, len(request))
        status: int = self._check(*slices, *arguments)
        self._library.rb_atom_budget_fini(ctypes.byref(budget))
        if status == 0:
            return None
        assert rule.value is not None
        return rule.value.decode()


# Requests and answers are {packet, 4} on stdin and stdout: terms' bytes in, for each of them either
# <<0>> or <<1, how it is written with Latin-1 atoms, how it is written with UTF-8 atoms>>.
JUDGE = """
  Port = open_port({fd, 0, 1}, [{packet, 4}, binary, eof]),
  Judge = fun(Bytes) ->
      try binary_to_term(<<131, Bytes/binary>>) of
          Term ->
              Write = fun(Version) ->
                  <<131, Written/binary>> = term_to_binary(Term, [{minor_version, Version}]),
                  Written
              end,
              {true, [Write(1), Write(2)]}
      catch error:_ -> false end
  end,
  Loop = fun Loop() ->
      receive
          {Port, {data, Batch}} ->
              Pieces = [P || <<Size:32, P:Size/binary>> <= Batch],
              Port ! {self(), {command, [case Judge(P) of
                  false -> <<0>>;
                  {true, [A, B]} -> [<<1, (byte_size(A)):32>>, A, <<(byte_size(B)):32>>, B]
              end || P <- Pieces]}},
              Loop();
          {Port, eof} -> halt(0)
      end
  end,
  Loop().
"""


class Beam:
    """binary_to_term of a real BEAM."""

    def __init__(self, to_beam: IO[bytes], from_beam: IO[bytes]) -> None:
        self._to_beam = to_beam
        self._from_beam = from_beam

    def judge(self, terms: Sequence[bytes]) -> list[tuple[bytes, bytes] | None]:
        """For each term None when it is refused, else its bytes as two ways of BEAMs write them."""
        batch = b"".join(len(term).to_bytes(4) + term for term in terms)
        self._to_beam.write(len(batch).to_bytes(4) + batch)
        self._to_beam.flush()
        answer = self._from_beam.read(int.from_bytes(self._from_beam.read(4)))
        verdicts: list[tuple[bytes, bytes] | None] = []
        at = 0

        def piece() -> bytes:
            nonlocal at
            size = int.from_bytes(answer[at : at + 4])
            at += 4 + size
            return answer[at - size : at]

        for _ in terms:
            taken = answer[at]
            at += 1
            verdicts.append((piece(), piece()) if taken else None)
        assert at == len(answer)
        return verdicts


@contextmanager
def beam(erl: str) -> Iterator[Beam]:
    command = [erl, "-noinput", "-boot", "start_clean", "-eval", JUDGE]
    environment = {**os.environ, "ERL_CRASH_DUMP": "/dev/null"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield Beam(child.stdin, child.stdout)
        finally:
            child.stdin.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
