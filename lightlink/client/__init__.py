"""The client: a connection, and a module for each thing that is done with it."""

from lightlink.client.client import Client, connect

__all__ = ["Client", "connect"]
