"""An experiment as data: files, overrides and cells. No torch here."""
