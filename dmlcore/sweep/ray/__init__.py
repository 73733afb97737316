"""Ray: runs the trials of a sweep on this machine or on a cluster."""
