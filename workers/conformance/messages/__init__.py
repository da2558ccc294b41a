"""The battery over messages: workers that are processes of a node (docs/remote-workers.md)."""
