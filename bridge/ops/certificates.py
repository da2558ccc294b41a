"""The bridge's certificates: opened at the start, examined by the doctor."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.config import Config, ConfigError
from bridge.dist.names import split_node_name
from bridge.dist.tls import TlsConfig, TlsError
from bridge.ops.finding import Finding

if TYPE_CHECKING:
    from bridge.fabric.tls import Tls

EXPIRY_WARNING_DAYS = 14


@contextmanager
def opened(config: Config) -> Iterator[Tls | None]:
    """The TLS of [tls], or None without that table. Raises ConfigError."""
    settings = config.tls_config()
    if settings is None:
        yield None
        return
    from bridge.fabric.tls import Tls  # the native part

    try:
        tls = Tls(settings)
    except TlsError as error:
        raise unusable(config, error) from error
    try:
        yield tls
    finally:
        tls.close()


def unusable(config: Config, error: TlsError) -> ConfigError:
    """The same said as of a setting."""
    key, _, rule = str(error).partition(": ")
    mend = "docs/tls.md says how to make certificates; `ringbridge doctor` looks at them"
    return ConfigError(file=config.file, key=f"tls.{key}", rule=rule, mend=mend)


def examine(settings: TlsConfig, name: str) -> Iterator[Finding]:
    """What the doctor says of the certificates of the node `name`. Needs the native part."""
    from bridge.fabric.tls import Context

    try:
        context = Context(settings)
    except TlsError as error:
        yield Finding("certificates", False, str(error), "docs/tls.md says how to make them")
        return
    yield from _key_file(settings)
    own = context.certificate()
    if own is None:
        yield Finding("certificate", False, "there is none to show to who dials us", "Give cert")
        return
    yield Finding("certificate", True, f"{own.subject}, names {own.names or 'nobody'}")
    yield _validity(own.not_before, own.not_after)
    if settings.ca is not None:
        problem = context.chain_problem()
        found = f"not signed by {settings.ca}: {problem}" if problem else f"signed by {settings.ca}"
        mend = "Have it signed by the CA of the cluster: peers that believe only that refuse ours"
        yield Finding("certificate's CA", problem is None, found, mend, must=False)
    try:
        _, host = split_node_name(name)
    except ValueError:
        return  # told elsewhere
    names = context.names_host(host)
    found = f"the certificate {'names' if names else 'does not name'} {host}"
    mend = f"Give it the subjectAltName {host}: nodes of OTP 26 and later look for it"
    yield Finding("certificate's host", names, found, mend, must=False)


def _key_file(settings: TlsConfig) -> Iterator[Finding]:
    key = settings.key or settings.cert
    if key is not None and (mode := stat.S_IMODE(os.stat(key).st_mode)) & 0o077:
        found = f"{key} has mode {mode:04o}: others can read it"
        yield Finding("key", False, found, f"Mend it with: chmod 0400 {key}", must=False)


def _validity(not_before: float, not_after: float) -> Finding:
    def words(at: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))

    title, now = "certificate's validity", time.time()
    if now >= not_after:
        return Finding(title, False, f"it expired at {words(not_after)}", "Renew it")
    if now < not_before:
        found = f"it is not valid before {words(not_before)}"
        return Finding(title, False, found, "Look at this host's clock")
    days = int((not_after - now) / 86_400)
    found = f"until {words(not_after)}, {days} days"
    mend = "Renew it; the bridge reads the new files by itself"
    return Finding(title, days >= EXPIRY_WARNING_DAYS, found, mend, must=False)
