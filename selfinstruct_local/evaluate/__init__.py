"""Models beside each other on held-out tasks: what they answer, how like the references, how sure, who is preferred."""
