"""Executors: in which processes cells run."""
