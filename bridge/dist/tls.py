"""TLS distribution as settings: which files, what is verified, which versions (docs/tls.md).

Facts (dist-protocol.md, 8): TLS begins with the first byte, and inside it the handshake's lengths
are u32. The certificate is checked against the host part of the node's name, as a BEAM does since
OTP 26. TLS does not replace the cookie: both are checked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

PREFIX_BYTES = 4  # of a handshake message's length under TLS; 2 on plain TCP

Verify = Literal["none", "server", "mutual", "mutual_host"]
Version = Literal["1.2", "1.3"]
VERIFY: tuple[Verify, ...] = ("none", "server", "mutual", "mutual_host")
VERSIONS: tuple[Version, ...] = ("1.2", "1.3")


class TlsError(Exception):
    """A file of the TLS settings cannot be used; the message names key, file and mend."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificate, key and CA as PEM files, and what is demanded of peers.

    `verify`: "none" looks at nobody's certificate; "server" looks at that of a node that we dial:
    signed by `ca`, and it names the node's host (what OTP 26 and later do); "mutual" demands one
    signed by `ca` of those who dial us, too; "mutual_host" demands that theirs names their node's
    host as well. Without `key` it lies in the file `cert`; without `cert` a node can only dial.
    """

    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    verify: Verify = "mutual"
    versions: tuple[Version, ...] = VERSIONS

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot work, whatever is in the files."""
        if self.verify not in VERIFY:
            raise ValueError(f"verify is one of {', '.join(VERIFY)}, not {self.verify!r}")
        if not self.versions or any(version not in VERSIONS for version in self.versions):
            raise ValueError(f"versions has one or both of 1.2 and 1.3, not {self.versions!r}")
        if self.ca is None and self.verify != "none":
            raise ValueError(f'verify = "{self.verify}" needs a ca')
        if self.key is not None and self.cert is None:
            raise ValueError("a key needs its cert")

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all its files."""
        return tuple(os.fspath(file) for file in (self.cert, self.key, self.ca) if file is not None)
