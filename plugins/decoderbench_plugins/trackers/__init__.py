"""Trackers: observers that also show a run elsewhere."""
