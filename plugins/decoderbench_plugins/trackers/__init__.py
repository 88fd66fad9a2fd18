"""Trackers are observers that send the events of a run to another tool."""
