"""Guardian: call-aware deployments of a cloud voice platform."""
