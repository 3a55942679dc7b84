"""The commands that are more than a call: each prints what it found, and raises AriConfError for the rest."""
