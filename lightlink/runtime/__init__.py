"""The background: threads, the event loop and nats-py live in this package and nowhere else."""
