"""From a listing to a plan: which fields are expected, which files each is counted from, which shard each is in."""
