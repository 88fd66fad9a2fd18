"""Trackers: observers that also show a run in another tool."""
