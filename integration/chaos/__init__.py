"""Deaths, alone and in pairs, at each step of a job, and what is left of them: nothing.

family.c              a worker with a child and a daemon, whose jobs stay at the step they are told
caller.exs            a BEAM whose processes call it
scene.py              a bridge, a BEAM and a family; who is there, who is killed, what is left
table.py              the death table of docs/failure-matrix.md, which test_death_table.py plays
walk.py               a random walk over it, for as long as wanted (make soak)
"""
