"""Functions that nodes run for each other: rpc, erpc, spawn and rex, in and out."""
