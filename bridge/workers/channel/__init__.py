"""The bridge's side of a worker's channel (docs/channel.md): what a worker says beside its jobs.

packets.py      bytes to requests and back, and the rules of both       (pure)
policy.py       what a role's workers may write to, and say             (pure)
pace.py         how fast a worker is read                               (pure)
memfds.py       bodies that come and go as sealed memfds
callbacks.py    messages and calls into the cluster
states.py       checkpoints of one life: asked for, saved, given
channel.py      the socket: one task that reads, one that writes
"""
