"""`kubectl pipelinejob`: the verbs of `pipelinejob` for the jobs of a cluster, and a doctor for its installation."""
