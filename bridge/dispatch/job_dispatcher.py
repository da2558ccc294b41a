"""JobDispatcher, Python's half: the process whose calls the relay answers.

Every `$gen_call`, cast, monitor and demonitor for it is the relay's and never comes here
(`owned_service`). Suspended, it takes jobs in and lets none begin, until it is resumed; their
deadlines run, and what runs goes on. When it is ended, the jobs, which are the relay's, run on.
"""

from __future__ import annotations

from bridge.dispatch.owned_service import OwnedService
from bridge.fabric.relay import Service

NAMES = ("Elixir.Ringbridge.JobDispatcher", "job_dispatcher")


class JobDispatcher(OwnedService):
    """Jobs: `{:submit, role, payload, opts}` and its kin."""

    service = Service.JOBS
    names = NAMES
    module = "Ringbridge.JobDispatcher"
