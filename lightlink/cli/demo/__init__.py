"""``lightlink demo``: what the library does, shown by doing it."""
