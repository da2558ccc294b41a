"""What observer, Phoenix LiveDashboard, etop, iex and the like ask of a node, answered for a node
that is no BEAM (docs/inspection.md).

`answers` publishes one module for each caller (`observer`, `appmon`, `dashboard`, `elixir`, `bifs`,
`otp`). They share one `inspection`, above those that hold the facts: `seen` (a process), `figures`,
`system_info`, `application` (the tree), `facts` (the kernel's).
"""

from bridge.node.inspection.answers import publish_answers
from bridge.node.inspection.application import RINGBRIDGE, Application, Child, SupervisorView
from bridge.node.inspection.inspection import Inspection, traffic_of

__all__ = [
    "RINGBRIDGE",
    "Application",
    "Child",
    "Inspection",
    "SupervisorView",
    "publish_answers",
    "traffic_of",
]
