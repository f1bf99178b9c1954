"""Serverless-style function pipelines over the rows of a CSV, with every row accounted for."""

__version__ = "0.1.0"
