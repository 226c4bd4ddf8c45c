"""The Vagrant machines on a machine that virtualises nothing: an LXC box, its network, a trial."""
