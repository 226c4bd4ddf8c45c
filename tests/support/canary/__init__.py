"""Secrets that are looked for everywhere but where they belong."""
