"""Errors, a class per cause. Every message is one line that names the culprit and the remedy."""


class BillhookError(Exception):
    """Base of all errors that a user can meet: one line, the culprit by name, and the remedy."""


class CaptureError(BillhookError):
    """The model cannot be turned into a graph, or an example input does not fit it."""


class VerifyError(BillhookError):
    """A Program breaks an invariant: a fault in a pass, named together with the pass."""


class AxisError(BillhookError):
    """An axis is unknown, frozen, or was given invalid indices."""


class PlanError(BillhookError):
    """A plan does not fit the program that it is applied to, or its file is damaged."""


class BudgetError(BillhookError):
    """No plan meets the budget; the message states the smallest reachable latency."""


class MeasureError(BillhookError):
    """A kernel could not be built or timed on the target."""


class DeviceError(BillhookError):
    """A device, its tracker or the process that measures on it cannot be reached, or is not what it was taken for.

    What was measured before is kept, and no kernel is blamed.
    """


class StoreError(BillhookError):
    """The measurement database is damaged, locked or of another schema version."""


class BundleError(BillhookError):
    """A bundle is incomplete, was altered, or is made for another target."""


class ToolchainError(BillhookError):
    """A needed tool or library is missing or has the wrong version."""


class DataError(BillhookError):
    """The data loader, the loss or the weights hold something unusable (nothing, wrong shape, NaN)."""


class OptionError(BillhookError):
    """An option has a value that is not allowed."""


class OutputError(BillhookError):
    """An output folder or file cannot be written: a full disk, a read-only folder, a file in the way."""
