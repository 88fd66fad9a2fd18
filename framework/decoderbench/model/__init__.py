"""The stages of a recognizer, their families, and what a recognizer costs. Imports torch."""
