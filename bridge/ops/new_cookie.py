"""The cookie for `serve`: found where the user put it, or created where OTP would create it."""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Mapping
from pathlib import Path

import structlog

from bridge.dist.cookie import (
    COOKIE_VARIABLE,
    Cookie,
    find_cookie,
    read_cookie_file,
    users_cookie_file,
)
from bridge.dist.errors import CookieError

LENGTH = 20  # auth.erl: twenty upper-case letters


def find_or_create_cookie(
    *,
    cookie_file: Path | None,
    configured_file: Path | None,
    environ: Mapping[str, str],
    create: bool,
) -> Cookie:
    """The first of --cookie-file, RINGBRIDGE_COOKIE, [node] cookie_file, ~/.erlang.cookie.

    With `create`, a missing ~/.erlang.cookie is written as `erl` does it. Raises CookieError.
    """
    if cookie_file is None and COOKIE_VARIABLE not in environ:
        cookie_file = configured_file
    default = users_cookie_file(environ)
    if create and cookie_file is None and COOKIE_VARIABLE not in environ and not default.exists():
        create_cookie_file(default)
        structlog.get_logger("ringbridge").info(
            "no cookie yet: created one, as erl does; every node of the cluster needs the same",
            file=str(default),
            mode="0400",
        )
    return find_cookie(cookie_file=cookie_file, environ=environ)


def create_cookie_file(path: Path) -> Cookie:
    """Write a random cookie to `path`, readable by its owner only. A file that is there wins.

    Raises CookieError when the folder cannot be written.
    """
    secret = "".join(secrets.choice(string.ascii_uppercase) for _ in range(LENGTH))
    # Written whole under another name and linked: another node that starts now sees all or nothing.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(secret)
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise CookieError(
            f"no cookie, and {path} cannot be created: {error.strerror}; set {COOKIE_VARIABLE} or "
            "give --cookie-file"
        ) from error
    return read_cookie_file(path)
