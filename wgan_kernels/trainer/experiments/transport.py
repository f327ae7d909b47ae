"""Optimal transport by linear programming, min c.x, A x = b, x >= 0, with its dual, max b.f, A^T f <= c."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor


def cheapest_plan(p: np.ndarray, q: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """How much goes from each of N piles p to each of M piles q, (N, M), of the same total, at the least cost."""
    found = linprog(cost.ravel(), A_eq=_marginals(*cost.shape), b_eq=np.concatenate([p, q]))
    return _solution(found).reshape(cost.shape)


def potentials(p: np.ndarray, q: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f1 (N,) and f2 (M,) with f1_i + f2_j <= cost_ij and the largest p.f1 + q.f2, which is the least cost."""
    gain = np.concatenate([p, q])
    found = linprog(-gain, A_ub=_marginals(*cost.shape).T, b_ub=cost.ravel(), bounds=(None, None))
    f1, f2 = np.split(_solution(found), [len(p)])
    return f1, f2


def distance(x: Tensor, y: Tensor) -> float:
    """W1 of two samples (N, P) of one size: the programme's corners are assignments, which have a faster solver."""
    cost = np.linalg.norm(x.double().numpy()[:, None] - y.double().numpy()[None], axis=2)
    return float(cost[linear_sum_assignment(cost)].mean())


def _marginals(n: int, m: int) -> sparse.csr_array:
    """A, which takes a plan to the piles that it takes from and to those that it makes."""
    left = sparse.kron(sparse.eye_array(n), np.ones((1, m)))
    right = sparse.kron(np.ones((1, n)), sparse.eye_array(m))
    return sparse.vstack([left, right]).tocsr()


def _solution(found: object) -> np.ndarray:
    if not found.success:
        raise RuntimeError(f"the linear programme was not solved: {found.message}")
    return found.x
