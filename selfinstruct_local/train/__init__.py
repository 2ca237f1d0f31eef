"""Fine-tuning on generated tasks: training examples, LoRA or full training, checkpoints and memory plans."""
