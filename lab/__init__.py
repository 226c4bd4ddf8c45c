"""Disposable Debian hosts on this machine: the workspace `lab-local`, made real."""
