"""Certificates of the tests' own CA, as files for us and as options for a BEAM."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.node import TlsConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Authority:
    """What scripts/make-test-certificates has made in `folder`."""

    folder: Path

    def config(self, name: str = "node", **changes: Any) -> TlsConfig:
        """Settings of ours with the certificate `name`."""
        return TlsConfig(
            **{
                "cert": self.folder / f"{name}.pem",
                "key": self.folder / f"{name}.key",
                "ca": self.folder / "ca.pem",
                **changes,
            }
        )

    def beam(self, name: str = "app", **options: Any) -> str:
        """Arguments of erl for a node with the certificate `name`; see `optfile`."""
        return f"-proto_dist inet_tls -ssl_dist_optfile {self.optfile(name, **options)}"

    def optfile(
        self,
        name: str | None = "app",
        *,
        ca: str = "ca",
        version: str | None = None,
        more: str = "",
    ) -> Path:
        """An -ssl_dist_optfile. `name` None: no client certificate; `more`: options for both."""
        common = [f'{{cacertfile,"{self.folder / ca}.pem"}}', "{verify,verify_peer}"]
        if version:
            common.append(f"{{versions,['tlsv{version}']}}")
        if more:
            common.append(more)
        server, client = [*common, "{fail_if_no_peer_cert,true}"], list(common)
        for side, shown in ((server, name or "app"), (client, name)):
            if shown:
                side += [
                    f'{{certfile,"{self.folder / shown}.pem"}}',
                    f'{{keyfile,"{self.folder / shown}.key"}}',
                ]
        path = self.folder / f"{name}-{ca}-{version}-{abs(hash(more))}.optfile"
        path.write_text(f"[{{server,[{','.join(server)}]}},{{client,[{','.join(client)}]}}].\n")
        return path


def make_certificates(folder: Path) -> Authority:
    subprocess.run([ROOT / "scripts/make-test-certificates", folder], check=True)
    return Authority(folder)
