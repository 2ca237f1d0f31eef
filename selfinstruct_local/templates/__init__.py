"""How a task or a conversation becomes a prompt's text or tokens."""
