"""Erlang distribution, the parts before and beside the frames: epmd, handshake, flags, cookie,
control messages.

Everything here is a pure core that takes bytes and gives events, except `epmd_client`, `connect`
and `listener`, the thin trio shells around them. Framing, ticks and fragments live in the relay
(C).
"""
