"""Bridges map feature maps to the memory that a decoder reads."""
