"""Decoders: memory to text."""
