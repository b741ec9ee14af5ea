"""nats-py and the socket: the only place that talks to a server."""
