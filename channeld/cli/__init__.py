"""The channeld command."""
