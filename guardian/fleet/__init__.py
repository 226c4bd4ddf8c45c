"""Salt: the agent on the master, its client, and the rollout of a frozen list of nodes."""
