"""Certificates from an ACME server (RFC 8555): ordered, proven, fetched and stored for pillar."""
