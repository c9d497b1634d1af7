"""What a run leaves behind: records, worker journals, the run folder, the reconciliation."""
