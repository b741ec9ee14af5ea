"""Open a connection: look names up, prove who we are, and say why a server was not taken."""
