"""Checkpoints: where they are kept, and how state moves from one worker to another.

store.py    the file: SQLite, one row a checkpoint                (no trio; called in a thread)
sealing.py  encryption at rest
keeper.py   the store for the bridge's tasks: places, bounds, chains
moving.py   a worker's state moves to another
"""
