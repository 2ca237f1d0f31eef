"""Taking tasks in or turning them away: rules, then novelty."""
