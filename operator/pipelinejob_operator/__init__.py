"""The operator: turns PipelineJob objects into Jobs on a cluster and keeps their status true."""
