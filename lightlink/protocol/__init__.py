"""What is on the wire: pure functions and values, no I/O and no threads."""
