"""Evaluation: compares models on held-out tasks by their answers, the likeness to references, the loss and a judge."""
