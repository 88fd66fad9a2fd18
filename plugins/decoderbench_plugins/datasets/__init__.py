"""Datasets: labelled images."""
