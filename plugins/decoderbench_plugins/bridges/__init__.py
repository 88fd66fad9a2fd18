"""Bridges: feature maps to memory."""
