"""Fine-tuning on what was generated: the prompt template, the examples, and LoRA on TRL and PEFT."""
