"""One page about runs and files of tasks: what is in them, what was turned away, how new and how spread they are."""
