"""Calls on the rest of what is in NATS: services, streams and dead letters, state, files, a live tail of events."""
