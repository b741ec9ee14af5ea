"""The calling side of RPC."""
