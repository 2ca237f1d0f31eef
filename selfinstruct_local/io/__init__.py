"""Input and output: atomic files, locks, record formats, and the terminal."""
