"""One battery that holds any executable to the rules of a worker (docs/workers-conformance.md).

It plays the bridge's side of a link by itself, in Python, from the generated layout alone: a second
implementation of rings, gate and regions, which shares no code with the C core that the kits use.
"""
