"""JetStream on top of a connection: requests, reads, pulls and ordered consumers."""
