"""The REST API over PipelineJobs: a client of the ledger on one machine, of the Kubernetes API in a cluster."""
