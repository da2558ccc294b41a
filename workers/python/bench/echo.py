"""Answers what it was sent: what the kit costs by itself (workers/python/Makefile)."""

import sys

sys.path.insert(0, "@KIT@")

from ringbridge_worker import Answer, Job, serve


def handle(job: Job) -> Answer:
    return job.payload


serve(handle, short_jobs="@SHORT@" == "True")
