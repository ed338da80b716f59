"""Every way an approval can be refused, with the exit code the command line gives for it."""

from dataclasses import dataclass
from enum import StrEnum


class Refusal(StrEnum):
    """Why a signed decision was not accepted."""

    UNKNOWN_KEY = "unknown_key"  # no operator has that key
    BAD_SIGNATURE = "bad_signature"  # not signed by the operator it names
    EXPIRED = "expired"
    CHAMPION_MOVED = "champion_moved"  # another champion or base than the one that was looked at
    SAME_OPERATOR = "same_operator"  # this operator's yes is already counted
    VERDICT_FAIL = "verdict_fail"
    VERDICT_INCONCLUSIVE = "verdict_inconclusive"  # or no verdict yet
    POLICY_MOVED = "policy_moved"
    EVALUATION_MOVED = "evaluation_moved"  # another evaluation or data set than the one on record
    REPLAYED = "replayed"
    WRONG_TYPE = "wrong_type"  # a signature made for another purpose
    REJECTED = "rejected"  # an operator said no to this candidate
    MALFORMED = "malformed"
    NOT_YET_VALID = "not_yet_valid"
    UNKNOWN_CANDIDATE = "unknown_candidate"
    OVERLONG = "overlong"  # valid for longer than any approval may be
    FORBIDDEN = "forbidden"  # a rule of the policy set says no
    TOO_FEW = "too_few"  # fewer operators than required

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self]


EXIT_CODES = {
    Refusal.UNKNOWN_KEY: 10,
    Refusal.BAD_SIGNATURE: 11,
    Refusal.EXPIRED: 12,
    Refusal.CHAMPION_MOVED: 13,
    Refusal.SAME_OPERATOR: 14,
    Refusal.VERDICT_FAIL: 15,
    Refusal.VERDICT_INCONCLUSIVE: 16,
    Refusal.POLICY_MOVED: 17,
    Refusal.EVALUATION_MOVED: 18,
    Refusal.REPLAYED: 19,
    Refusal.WRONG_TYPE: 20,
    Refusal.REJECTED: 21,
    Refusal.MALFORMED: 22,
    Refusal.NOT_YET_VALID: 23,
    Refusal.UNKNOWN_CANDIDATE: 24,
    Refusal.OVERLONG: 25,
    Refusal.FORBIDDEN: 26,
    Refusal.TOO_FEW: 27,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A no, with what to tell the person."""

    refusal: Refusal
    message: str

    @property
    def exit_code(self) -> int:
        return self.refusal.exit_code
