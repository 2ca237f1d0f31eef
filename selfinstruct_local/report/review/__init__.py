"""Blind review of a sample: a page that asks three questions per task, and the scores of the saved labels.

The questions are those of the expert review of Self-Instruct (Wang et al. 2022, arXiv 2212.10560, section 4.2).
"""
