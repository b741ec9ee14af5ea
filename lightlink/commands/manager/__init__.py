"""The manager: sends commands and follows them."""
