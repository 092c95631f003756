"""Whether a choice model's likelihood has a summit, or rises for ever in some direction.

It rises for ever where a direction never makes a chosen alternative less likely than another one,
and sometimes makes it more likely: a linear program tells. Knows nothing of what is chosen.
Source: Albert and Anderson (1984), Biometrika 71; Konis (2007), Linear programming algorithms for
detecting separated data in binary logistic regression models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qwen_eval.paired import Array


def separating(alternatives: Array, chosen: NDArray[np.intp]) -> Array | None:
    """The shortest direction (least sum of absolute values, so that few coefficients take part) in
    which the likelihood rises for ever; None where its summit is finite. `alternatives`: votes ×
    alternatives × coefficients; `chosen`: an alternative per vote."""
    from scipy.optimize import linprog

    rows = np.arange(len(chosen))
    gains = alternatives[rows, chosen][:, None] - alternatives
    gains = np.unique(gains.reshape(-1, gains.shape[2]).round(12), axis=0)
    # A direction is the difference of two parts that are nowhere below zero.
    parts = np.hstack([gains, -gains])
    found = linprog(
        np.ones(parts.shape[1]),
        A_ub=-parts,
        b_ub=np.zeros(len(parts)),
        A_eq=parts.mean(axis=0, keepdims=True),
        b_eq=[1.0],
    )
    infeasible = 2
    assert found.status in (0, infeasible), found.message
    if found.status == infeasible:
        return None
    up, down = np.split(found.x, 2)
    direction: Array = up - down
    return direction
