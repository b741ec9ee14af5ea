"""Scenarios in which everything goes wrong that can, with real servers and processes, and books that must balance."""
