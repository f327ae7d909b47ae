"""The specification: plain differentiable torch functions that read like the formulas.

Nothing here is an operator and nothing here is fast. Every kernel of the package is tested against these
functions, and they serve wherever no kernel does.
"""
