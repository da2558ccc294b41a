"""What a call through a real worker process costs, beside its alternatives: `make bench`."""
