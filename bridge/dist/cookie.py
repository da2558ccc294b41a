"""The cookie: where it comes from, OTP's rules for its file, and an object that never shows it.

Order: the `cookie` given by the program, the cookie file given by the user, RINGBRIDGE_COOKIE,
the file that a BEAM of this user has. The file rules are those of auth.erl: a regular file that nobody but its owner can
read, printable ASCII, blank characters at its end are not part of the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from bridge.dist.errors import CookieError

COOKIE_VARIABLE = "RINGBRIDGE_COOKIE"
_FILE_MAX_BYTES = 4096  # an atom has at most 255 characters; more than this is not a cookie file
_FILE_CONTENT = re.compile(rb"([ -~]*)(?:[\r\n][\r\n ]*)?")  # auth.erl: blanks after the line end


class Cookie:
    """A cookie that can prove itself and check a proof, and whose repr, str and pickle hide it."""

    __slots__ = ("_secret", "source")

    def __init__(self, secret: str, *, source: str = "option") -> None:
        """`source` says where it came from, for error messages. Raises CookieError naming the
        rule.
        """
        if not secret:
            raise CookieError(f"{source}: the cookie is empty; give it at least one character")
        if len(secret) > 255:
            raise CookieError(f"{source}: a cookie is an atom, so of at most 255 characters")
        if any(not " " <= char <= "~" for char in secret):
            raise CookieError(
                f"{source}: the cookie holds a character outside printable ASCII; "
                "use letters and digits only"
            )
        self._secret = secret.encode("ascii")
        self.source = source

    def digest(self, challenge: int) -> bytes:
        """MD5(cookie ++ decimal ASCII of the challenge), 16 raw bytes (dist-protocol.md, 2.2)."""
        # usedforsecurity=False: the protocol fixes MD5; this lets it run where FIPS mode refuses
        # it.
        text = self._secret + str(challenge).encode("ascii")
        return hashlib.md5(text, usedforsecurity=False).digest()

    def proves(self, digest: bytes, challenge: int) -> bool:
        """Whether `digest` answers `challenge` with this cookie; takes the same time for any
        digest.
        """
        return hmac.compare_digest(digest, self.digest(challenge))

    def __repr__(self) -> str:
        return f"<Cookie from {self.source}>"

    def __reduce__(self) -> str:
        raise TypeError("a cookie is not pickled")


def read_cookie_file(path: str | os.PathLike[str]) -> Cookie:
    """The cookie in the file at `path`. Raises CookieError with rule, file, mode and mend."""
    file = Path(path)
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CookieError(f"cookie file {file}: {error.strerror}") from error
    try:
        status = os.fstat(fd)  # of what was opened: a file swapped in between is not trusted
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise CookieError(f"cookie file {file}: must be a regular file")
        if mode & 0o077:
            raise CookieError(
                f"cookie file {file} must be accessible by its owner only, but its mode is "
                f"{mode:04o}; mend it with: chmod 400 {file}"
            )
        data = os.read(fd, _FILE_MAX_BYTES)
    finally:
        os.close(fd)
    source = f"cookie file {file}"
    return Cookie(_content(data, source), source=source)


def read_cookie_fd(fd: int) -> Cookie:
    """The cookie that is written to the descriptor `fd`, up to its end of file, which is waited for.

    The descriptor is closed; 0, 1 and 2 lead to /dev/null then, so that nothing that is opened later
    gets their number. Raises CookieError, OSError.
    """
    data = b""
    while len(data) <= _FILE_MAX_BYTES and (more := os.read(fd, _FILE_MAX_BYTES)):
        data += more
    if fd <= 2:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, fd)
        os.close(null)
    else:
        os.close(fd)
    return Cookie(_content(data, f"cookie of descriptor {fd}"), source=f"descriptor {fd}")


def _content(data: bytes, source: str) -> str:
    match = _FILE_CONTENT.fullmatch(data)
    if match is None:
        raise CookieError(
            f"{source}: holds characters outside printable ASCII, or more than one line; "
            "it must be one line of letters and digits"
        )
    return match[1].decode("ascii")


def users_cookie_file(environ: Mapping[str, str]) -> Path:
    """Where a BEAM of this user has its cookie: ~/.erlang.cookie, which it makes if there is none,
    unless only $XDG_CONFIG_HOME/erlang/.erlang.cookie exists.
    """
    home = Path(environ.get("HOME") or Path.home())
    file = home / ".erlang.cookie"
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    configured = config / "erlang" / ".erlang.cookie"
    return configured if configured.exists() and not file.exists() else file


def find_cookie(
    *,
    cookie: str | Cookie | None = None,
    cookie_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Cookie:
    """The cookie of this node, from the first place that has one. Raises CookieError.

    A place that has one which breaks a rule is an error, not a reason to look further.
    """
    env = os.environ if environ is None else environ
    if isinstance(cookie, Cookie):
        return cookie
    if cookie is not None:
        return Cookie(cookie)
    if cookie_file is not None:
        return read_cookie_file(cookie_file)
    if COOKIE_VARIABLE in env:
        return Cookie(env[COOKIE_VARIABLE], source=COOKIE_VARIABLE)
    file = users_cookie_file(env)
    if file.exists():
        return read_cookie_file(file)
    raise CookieError(
        f"no cookie: {COOKIE_VARIABLE} is not set and there is no {file}. Give the cluster's by "
        "either, or by cookie_file= (--cookie-file of the command). Where there is no cluster yet, "
        "the first `erl -sname a` makes that file, as ringbridge serve does"
    )
