"""Erlang distribution beside the frames: epmd, handshake, flags, cookie, control messages.

Pure cores that take bytes and give events, and two thin trio shells around them, `epmd_client` and
`connect`. Framing, ticks and fragments live in the relay (C).
"""
