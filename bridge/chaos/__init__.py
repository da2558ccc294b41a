"""Trouble on purpose, to see what callers see of it (docs/chaos.md).

lane.py     one direction of a troubled connection: bytes and times in, pieces out   (pure)
proxy.py    a TCP proxy whose connections are slow, cut, split or still
detour.py   the proxy before a node, with an epmd that sends callers there
"""
