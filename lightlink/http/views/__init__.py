"""What the calls of the HTTP API do: one module for each group of them."""
