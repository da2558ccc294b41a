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
from bridge.dist.finding import OnePort, Place, Places, Resolver
from bridge.dist.tls import TlsConfig, TlsError
from bridge.node.calls import Down, Monitor, ProcessDown
from bridge.node.carrier import Carrier
from bridge.node.cluster.dialling import NoConnection
from bridge.node.cluster.keeping import Backoff, Kept, KeptStatistics
from bridge.node.cluster.node_events import NodeDown, NodeMonitor, NodeUp
from bridge.node.exports import Exports, Raise
from bridge.node.functions.caller import Caller
from bridge.node.functions.executions import ExportLimits
from bridge.node.functions.remote_calls import Failed, Returned
from bridge.node.functions.remote_errors import (
    BadRpc,
    RemoteError,
    RemoteException,
    RemoteExit,
    RemoteThrow,
    SpawnRefused,
)
from bridge.node.inspection import Application
from bridge.node.node import Node, NodeStatistics
from bridge.node.open_node import EventCarrier, open_node, pump_events, relay_carrier
from bridge.node.process.child_spec import ChildSpec
from bridge.node.process.direct import RelayServiceHooks
from bridge.node.process.ends import NO_REPLY, NoReply, Stop
from bridge.node.process.handle import ProcessHandle
from bridge.node.process.handlers import call, cast, info
from bridge.node.process.mailbox import MailboxPolicy, MailboxStatistics, WhenFull
from bridge.node.process.patterns import ANY
from bridge.node.process.server import GenServer
from bridge.node.process.supervisor import Supervisor
from bridge.node.signals.gen import Call, Cast, Info, Sender, SystemRequest
from bridge.node.signals.policy import Asked, Policy

__all__ = [
    "ANY",
    "NO_REPLY",
    "Application",
    "Asked",
    "Backoff",
    "BadRpc",
    "Call",
    "Caller",
    "Carrier",
    "Cast",
    "ChildSpec",
    "Cookie",
    "CookieError",
    "Down",
    "EpmdClient",
    "EpmdError",
    "EventCarrier",
    "ExportLimits",
    "Exports",
    "Failed",
    "GenServer",
    "Info",
    "Kept",
    "KeptStatistics",
    "LocalProtocolError",
    "MailboxPolicy",
    "MailboxStatistics",
    "Monitor",
    "NameTaken",
    "NoConnection",
    "NoReply",
    "Node",
    "NodeDown",
    "NodeMonitor",
    "NodeStatistics",
    "NodeUp",
    "OnePort",
    "Place",
    "Places",
    "Policy",
    "ProcessDown",
    "ProcessHandle",
    "Raise",
    "RelayServiceHooks",
    "RemoteError",
    "RemoteException",
    "RemoteExit",
    "RemoteProtocolError",
    "RemoteThrow",
    "Resolver",
    "Returned",
    "Sender",
    "SpawnRefused",
    "Stop",
    "Supervisor",
    "SystemRequest",
    "TlsConfig",
    "TlsError",
    "WhenFull",
    "call",
    "cast",
    "find_cookie",
    "info",
    "open_node",
    "pump_events",
    "relay_carrier",
]
