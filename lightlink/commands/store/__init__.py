"""The streams and buckets that hold commands."""
