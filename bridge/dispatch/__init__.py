"""Dispatch: Python's half of the service that the relay answers."""
