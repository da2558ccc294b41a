"""What needs the whole: a real BEAM, the bridge and native workers together."""
