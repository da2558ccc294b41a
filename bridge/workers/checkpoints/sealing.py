"""Encryption of checkpoints at rest: AES-256-GCM, the key from a file of its own.

Each checkpoint has a random nonce and is bound to its place, its number and its kind, so a row that
was moved or swapped in the file does not open. Somebody who can write the file can still put an
older whole file in its place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

KEY_BYTES = 32
_NONCE_BYTES = 12


class SealError(Exception):
    """What was read is not what was written under this key."""


class Sealer(Protocol):
    """How checkpoints lie in the file. `name` is kept in it: a file is of one sealer for life."""

    name: str

    def seal(self, state: bytes, about: bytes) -> bytes: ...
    def open(self, sealed: bytes, about: bytes) -> bytes: ...


class Plain:
    """As they are."""

    name = "plain"

    def seal(self, state: bytes, about: bytes) -> bytes:
        return state

    def open(self, sealed: bytes, about: bytes) -> bytes:
        return sealed


class AesGcm:
    """Encrypted and authenticated under one key."""

    name = "aes-256-gcm"

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._invalid = InvalidTag

    def seal(self, state: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, state, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
        except (self._invalid, ValueError) as error:
            raise SealError("the key is another, or the file was changed") from error


def read_key(path: Path) -> bytes:
    """The key in `path`: 32 bytes, or 64 hex digits. Raises ValueError, OSError."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        raw = file.read(4 * KEY_BYTES)
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise ValueError(f"others may read it; mend it with: chmod 600 {path}")
    if len(raw) == KEY_BYTES:
        return raw
    try:
        key = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is {KEY_BYTES} bytes or {2 * KEY_BYTES} hex digits")
    return key
