"""Subscriptions and messages."""
