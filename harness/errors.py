"""The two ways things go wrong: the user's input, or a trial's own numbers."""

from __future__ import annotations


class UserError(Exception):
    """The user's input is wrong: one sentence saying what, where, and what would do (exit status 2)."""


class TrialFailure(Exception):
    """A trial cannot go on: a quantity became NaN, infinite or meaningless.

    Parameters
    ----------
    quantity
        Name of the metric or tensor at fault, e.g. ``train/loss``.
    epoch
        Epoch in which it was seen, counted from 1.
    what
        What was seen, e.g. ``is nan``.
    """

    def __init__(self, quantity: str, epoch: int, what: str) -> None:
        super().__init__(f"{quantity} {what} in epoch {epoch}")
        self.quantity = quantity
        self.epoch = epoch
        self.what = what


class TrialInterrupted(Exception):
    """A trial was asked to leave its machine: a checkpoint is written, and it goes on from there elsewhere."""


class TrialStopped(Exception):
    """A ``stop`` file was found in the trial's folder: the driver prunes or cancels it."""
