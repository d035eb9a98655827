"""channeld: two OTC desks trade derivatives with each other directly, in a state channel."""

__version__ = "0.1.0"
