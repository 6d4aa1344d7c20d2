"""Checks, before a run reserves resources, whether its needs fit what a cluster has or may get."""
