"""Workers that are processes of other nodes: docs/remote-workers.md."""
