"""Secrets of nodes, read from AWS on their behalf by the master: granted, checked, cached, sealed.

Nothing here imports Salt. Salt re-executes an external pillar at every compilation, so what must
last between two (clients, keys, sessions) lives in this package, which a process imports once.
"""
