"""Threads and time; nothing here knows NATS."""
