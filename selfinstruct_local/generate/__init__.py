"""Making new tasks: profiles, the scheduler that keeps the engine full, and the loop."""
