"""`selfinstruct filter --engine ray`: the filter on Ray, for data that exceeds the memory of one machine."""
