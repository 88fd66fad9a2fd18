"""Shared by tests: components to check, records made by hand, installed distributions, and ways to start a run."""
