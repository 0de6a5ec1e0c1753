"""A network on a collection: shards of tracks, the tables made of them, and exemplars."""
