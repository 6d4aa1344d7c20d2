"""Whether a run can work, known before it takes anything: what it needs against what a cluster has or may get."""
