"""Task generation: profiles, the scheduler that keeps the engine full, and the loop."""
