"""Where Django looks for ``manage.py lightlink_...``."""
