"""For tests of programs that are nodes: real BEAMs in a cluster of their own, and what drives them.

`Beam` and `EpmdDaemon` serve any test runner. With pytest the fixtures of `bridge.testing.plugin`
(installed with the package, or `-p bridge.testing.plugin`) start and end them.
"""

from bridge.testing.beam import COOKIE, Beam, BeamError, missing_programs
from bridge.testing.epmd_daemon import HOST, EpmdDaemon

__all__ = ["COOKIE", "HOST", "Beam", "BeamError", "EpmdDaemon", "missing_programs"]
