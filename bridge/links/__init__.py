"""Links between workers (docs/links.md): who may have one, and what becomes of it.

links.py           all that there are: grants, refusals, ends, the audit
link_manager.py    the service that shows and ends them
"""
