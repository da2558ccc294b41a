"""What a process in Python is: mailbox, task, handle, GenServer, supervisor, and `sys`."""
