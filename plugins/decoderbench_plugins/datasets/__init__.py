"""Datasets: labeled images."""
