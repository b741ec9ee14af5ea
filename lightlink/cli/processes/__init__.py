"""Subcommands that run until they are stopped, and what they share."""
