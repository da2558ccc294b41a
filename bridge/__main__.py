"""`python -m bridge`: the `ringbridge` command, for an environment that was moved since its scripts
were written.
"""

from bridge.cli import main

main()
