"""Writing the accepted tasks of a run in the formats that other trainers and the published programs read."""
