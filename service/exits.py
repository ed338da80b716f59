"""Exit codes of the command line. Stable: scripts rely on them. Refused decisions have their own, 10 and up."""

OK = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
NOT_FOUND = 4
RUN_FAILED = 5
AUDIT_BROKEN = 6
NOT_POSSIBLE = 7  # policy or state says no: nothing to train, nothing to roll back to, state in use
UNAVAILABLE = 8  # a model could not be fetched

MEANING = {
    OK: "done",
    FAILED: "an unexpected failure",
    USAGE: "the command line was not understood",
    NO_DAEMON: "no daemon answers on the socket",
    NOT_FOUND: "no such interaction, question, run or candidate",
    RUN_FAILED: "the run ended without a candidate",
    AUDIT_BROKEN: "the audit chain does not hold",
    NOT_POSSIBLE: "policy or the present state says no",
    UNAVAILABLE: "a model could not be fetched or verified",
}
