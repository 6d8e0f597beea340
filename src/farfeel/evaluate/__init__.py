"""Evaluation: test sets, prediction tables, metrics, comparison, calibration and reports.

`metrics`, `compare`, `report`, `table` and `text` compute on prediction tables alone and do not import torch.
"""
