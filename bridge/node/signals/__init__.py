"""Signals between processes: the table of processes, links, monitors, aliases, and the router."""
