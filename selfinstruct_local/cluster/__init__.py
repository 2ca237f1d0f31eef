"""`selfinstruct filter --engine ray`: the filter on Ray, for what one machine's memory does not hold."""
