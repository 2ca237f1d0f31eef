"""Reading tasks out of what a model wrote: blocks, lists, worked cases, JSON, and as the published programs do."""
