"""A report page on runs and task files: contents, rejections, novelty and diversity."""
