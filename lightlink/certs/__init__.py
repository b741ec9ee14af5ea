"""Certificates for mutual TLS: an authority, what it issues, and the server configuration that goes with them.

Importing it takes cryptography along, which is slow: the link does so only when TLS files are used.
"""

from __future__ import annotations

from lightlink.certs.authority import CA_DAYS, LEAF_DAYS, CertificateAuthority
from lightlink.certs.certificate import WARN_DAYS, CertificateInfo
from lightlink.certs.check import check_client_files, check_server_files, identity_of
from lightlink.certs.config import config_settings, remake_config, server_config
from lightlink.certs.reload import reload_server

__all__ = [
    "CA_DAYS",
    "LEAF_DAYS",
    "WARN_DAYS",
    "CertificateAuthority",
    "CertificateInfo",
    "check_client_files",
    "check_server_files",
    "config_settings",
    "identity_of",
    "reload_server",
    "remake_config",
    "server_config",
]
