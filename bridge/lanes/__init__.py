"""Lanes: memory that a BEAM of this host shares with the relay (docs/nif-lane.md)."""
