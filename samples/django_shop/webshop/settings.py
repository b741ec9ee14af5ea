"""The settings that matter here; see https://docs.djangoproject.com/ for the others."""

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "only for this sample")
DEBUG = os.environ.get("DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = ["lightlink.contrib.django", "catalogue", "orders"]
MIDDLEWARE = ["lightlink.contrib.django.middleware.LightLinkErrorsMiddleware"]
ROOT_URLCONF = "webshop.urls"
WSGI_APPLICATION = "webshop.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

# Where to connect comes from the environment (LIGHTLINK_URL) unless it is said here.
LIGHTLINK = {"OPTIONS": {"timeout": 5.0}, "ATOMIC_HANDLERS": True}

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SQLITE", BASE_DIR / "shop.sqlite3"),
        # A file, because the handlers' threads use the database of the tests too.
        "TEST": {"NAME": f"{os.environ.get('SQLITE', BASE_DIR / 'shop.sqlite3')}-test"},
        "OPTIONS": {"timeout": 20},
    }
}
if os.environ.get("DATABASE") == "postgresql":
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "shop"),
        # Connections are kept, and looked at before they are used again: a restart of the database breaks them.
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
    }
