"""Trouble on purpose, to see what callers see of it (docs/chaos.md).

plan.py        what is believed, what is done, what may come of it   (pure)
measures.py    what callers saw, and whether the plan was right      (pure)
injectors.py   does it: hooks, signals, limits, the wire
experiment.py  callers, injections at their times, judgement
showing.py     the report for people

lane.py        one direction of a troubled connection: bytes and times in, pieces out   (pure)
proxy.py       a TCP proxy whose connections are slow, cut, split or still
detour.py      the proxy before a node, with an epmd that sends callers there
"""
