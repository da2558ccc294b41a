"""The Python face of the C core: links, the relay thread, the layout. Knows nothing of nodes."""
