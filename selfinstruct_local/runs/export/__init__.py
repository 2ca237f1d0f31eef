"""Exports of the accepted tasks of a run, in the formats of other trainers and of the published programs."""
