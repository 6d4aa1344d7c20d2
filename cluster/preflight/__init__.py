"""Checks before a run reserves anything whether it can work: its needs against what a cluster has or may get."""
