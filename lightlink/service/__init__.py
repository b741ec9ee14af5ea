"""The serving side of RPC."""
