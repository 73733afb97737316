"""The sweep: cells of the search space, their keys, what is still to run, and Ray Tune to run it."""
