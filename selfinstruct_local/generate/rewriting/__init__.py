"""Translation and rewriting of accepted tasks: the profile, its checks, and the target run."""
