"""Ringbridge: a hidden Erlang node whose work runs in native worker processes.

The packages below import one way only: etf <- dist <- node <- dispatch, workers, links <- app.
`bridge.etf` and `bridge.node` also serve alone, as an Erlang node library for Python.
"""

__version__ = "0.1.0"
