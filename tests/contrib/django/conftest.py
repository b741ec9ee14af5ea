"""Django set up for tests in this process: no apps but ours, a database in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="x" * 50,
        INSTALLED_APPS=["lightlink.contrib.django"],
        LIGHTLINK={},
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path(tempfile.mkdtemp(prefix="lightlink-django-")) / "db.sqlite3"),
                "OPTIONS": {"timeout": 20},
            }
        },
    )
    django.setup()
