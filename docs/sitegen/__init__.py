"""Generates the pages of the site, all from files and code of the repository: `pages.py` has the list of them."""
