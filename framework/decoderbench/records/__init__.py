"""What a run leaves: `plan.json` and `result.json`, the folder that they are in, and packs. No torch here."""
