"""Everything that tools may ask, put into the node's table: one module answers each caller."""

from bridge.node.exports import Exports
from bridge.node.inspection import appmon, bifs, dashboard, elixir, observer, otp
from bridge.node.inspection.inspection import Inspection


def publish_answers(of: Inspection) -> None:
    """What the node has published already stays: a program may answer in its own way."""
    answers = Exports()
    of.modules.publish(answers)
    for caller in (bifs, otp, observer, appmon, dashboard, elixir):
        caller.publish(answers, of)
    of.node.exports.fill(answers)
