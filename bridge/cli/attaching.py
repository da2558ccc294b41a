"""`ringbridge attach`: a worker started by hand joins a role (bridge/workers/attach.py)."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
from functools import partial
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from bridge.cli.asking import operate
from bridge.cli.options import DEFAULT_CONFIG, ConfigOption, CookieFileOption, NameOption
from bridge.dist.cookie import COOKIE_VARIABLE
from bridge.ops.errors import Refused

LINK_FDS_AT = 3  # as a shepherd gives them: csrc/layout.toml, [descriptors]
FDS = 6
_PR_SET_PDEATHSIG = 1


def attach(
    role: Annotated[str, typer.Option("--role", help="The role that it serves.")],
    command: Annotated[list[str], typer.Argument(help="The worker, after --.", metavar="CMD")],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Start CMD as one more worker of a role, under a debugger for example.

    It runs as you, in your terminal, with no shepherd around it. It ends with this command.
    """
    offers: list[dict[str, Any]] = []
    operate(name, config, cookie_file, lambda ops: partial(ops.attach, role, offers))
    sys.exit(run(offers[0], command))


def run(offer: dict[str, Any], command: list[str]) -> int:
    """Take the place, run the worker, tell its end. Returns its status, as a shell has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(offer["socket"])
        except OSError as error:
            why = f"{offer['socket']}: {error.strerror}; attach on the bridge's host, as its user"
            raise Refused(why) from None
        connection.sendall(offer["token"].encode() + b"\n")
        data, fds, _, _ = socket.recv_fds(connection, 1 << 16, FDS)
        while data and not data.endswith(b"\n"):
            data += (more := connection.recv(1 << 16))
            if not more:
                break
        if len(fds) != FDS:
            raise Refused("the bridge did not let this worker in; its log says why")
        place = json.loads(data)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            env = {key: value for key, value in os.environ.items() if key != COOKIE_VARIABLE}
            _become(command, fds, env | place["env"], parent)
        for fd in fds:
            os.close(fd)
        typer.echo(f"attached as worker {place['worker']}, process {child}", err=True)
        return _wait(child, connection)


def _become(command: list[str], fds: list[int], env: dict[str, str], parent: int) -> NoReturn:
    """In the child. It ends with its parent, and has the link where every worker has it."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked to die with it
            os._exit(127)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        high = [_above(fd, LINK_FDS_AT + FDS) for fd in fds]
        for place, fd in enumerate(high, LINK_FDS_AT):
            os.dup2(fd, place, inheritable=True)
        os.execvpe(command[0], command, env)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _above(fd: int, least: int) -> int:
    """A copy of `fd` that is none of the numbers below `least`."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def _wait(child: int, connection: socket.socket) -> int:
    """Ctrl-C is the debugger's; SIGTERM is the worker's."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, hand_on)
    _, how = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(how)
    report = {"status": max(status, 0), "signal": max(-status, 0)}
    connection.sendall(json.dumps(report).encode() + b"\n")
    return status if status >= 0 else 128 - status
