"""Ray and Ray Tune: a cluster, its nodes, the scheduling of trials. Only this package imports Ray."""
