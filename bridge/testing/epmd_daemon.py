"""A private epmd: a test's nodes neither see nor disturb those of whoever runs it."""

from __future__ import annotations

import socket
import subprocess
import time

HOST = "127.0.0.1"
START_DEADLINE_S = 10.0


class EpmdDaemon:
    """An epmd on a free port; it ends with `close`. `host` is the address it listens on, the
    loopback's by default; None for every address of this machine.

    Raises FileNotFoundError when there is no epmd, TimeoutError when it does not listen.
    """

    def __init__(self, host: str | None = HOST) -> None:
        self._addresses = ["-address", host] if host else []
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, again after `close`; returns when it answers."""
        self._process = subprocess.Popen(
            ["epmd", "-port", str(self.port), *self._addresses],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                socket.create_connection((HOST, self.port)).close()
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.close()
                    raise TimeoutError(f"epmd does not listen on port {self.port}") from None
                time.sleep(0.005)
            else:
                return

    def close(self) -> None:
        """End it, and with it what its nodes have registered."""
        self._process.kill()
        self._process.wait()
