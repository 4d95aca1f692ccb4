"""Reading tables. A table is a DataFrame of a trace, or a mapping from the same column names to sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

Table: TypeAlias = Mapping[str, Any] | pd.DataFrame


def numbers(table: Table, column: str) -> np.ndarray:
    """(rows,) float64; NaN where the column is empty."""
    values = table[column]
    if isinstance(values, pd.Series):
        return values.to_numpy(dtype="float64", na_value=np.nan)
    return np.array(values, dtype="float64")


def words(table: Table, column: str) -> np.ndarray:
    """(rows,) of strings."""
    return np.array(table[column], dtype=object)
