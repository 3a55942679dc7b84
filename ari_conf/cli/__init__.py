"""Commands of `ari-conf`: each prints its result, and raises AriConfError if it fails."""
