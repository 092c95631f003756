"""The one exception tree of the project. Knows nothing of the rest.

Everything a user can get wrong is a UserError whose message is one line: it names the flag,
file or line at fault and the way out. The CLI prints it without a traceback and exits with
`exit_code`. Broken invariants of our own are plain asserts.
"""


class QwenEvalError(Exception):
    """Base of all errors this project raises on purpose; shown as one line, never a traceback."""

    exit_code = 2


class UserError(QwenEvalError):
    """A mistake the user can mend: a flag, a file, a line (exit 2)."""


class MissingDataError(UserError):
    """The rows of a task are nowhere to be had: a suite can go on without it (exit 2)."""


class MissingToolError(UserError):
    """Nothing here runs what a task asks for: a suite can go on without it (exit 2)."""


class RefusedError(QwenEvalError):
    """The request is understood and refused: not comparable, or not safe here (exit 3)."""

    exit_code = 3


class InfrastructureError(QwenEvalError):
    """Too many samples failed for reasons that are not the model's answers (exit 4)."""

    exit_code = 4
