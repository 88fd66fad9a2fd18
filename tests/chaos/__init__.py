"""Fault campaigns: a small grid is killed, or its disk loses power, and is run again with the same command."""
