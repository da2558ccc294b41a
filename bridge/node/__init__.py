"""A hidden Erlang node in Python, alone or as the control plane of the bridge.

`open_node` runs a node, `GenServer` is what its services derive from; nothing here knows of
workers.
"""

from bridge.dist.cookie import Cookie, find_cookie
from bridge.dist.epmd_client import EpmdClient
from bridge.dist.errors import (
    CookieError,
    EpmdError,
    LocalProtocolError,
    NameTaken,
    RemoteProtocolError,
)
from bridge.node.calls import Down, Monitor, ProcessDown
from bridge.node.carrier import Carrier
from bridge.node.connections import NoConnection, Resolver
from bridge.node.direct import RelayServiceHooks
from bridge.node.gen import Sender
from bridge.node.node import Node, NodeStatistics
from bridge.node.open_node import EventCarrier, open_node, pump_events, relay_carrier
from bridge.node.policy import Asked, Policy
from bridge.node.server import NO_REPLY, GenServer, NoReply, Stop

__all__ = [
    "NO_REPLY",
    "Asked",
    "Carrier",
    "Cookie",
    "CookieError",
    "Down",
    "EpmdClient",
    "EpmdError",
    "EventCarrier",
    "GenServer",
    "LocalProtocolError",
    "Monitor",
    "NameTaken",
    "NoConnection",
    "NoReply",
    "Node",
    "NodeStatistics",
    "Policy",
    "ProcessDown",
    "RelayServiceHooks",
    "RemoteProtocolError",
    "Resolver",
    "Sender",
    "Stop",
    "find_cookie",
    "open_node",
    "pump_events",
    "relay_carrier",
]
