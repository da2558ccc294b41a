"""Workers from the bridge's side: started, guarded, watched, restarted, listed."""
