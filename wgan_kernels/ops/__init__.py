"""The operators: their schemas, derivative formulas and public functions."""

from . import _schemas as _schemas
