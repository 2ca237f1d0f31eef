"""Reading and writing: whole files, locks, records in their formats, the terminal."""
