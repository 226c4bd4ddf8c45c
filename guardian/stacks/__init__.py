"""Terraform: the order of stacks, one root in one subprocess, plans bound to what was shown."""
