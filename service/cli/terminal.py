"""Text that others wrote, fit for a terminal: what it would do there is spelled out instead of done."""

CONTROLS = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))  # all but newline and tab
LINE_ENDS = (0x2028, 0x2029)
DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they turn what is read around
HALVES = range(0xD800, 0xE000)  # of a character: not to be printed at all
SPELLED = {number: f"\\u{number:04x}" for number in (*CONTROLS, *LINE_ENDS, *DIRECTIONS, *HALVES)}


def shown(text: str) -> str:
    """Its lines and tabs stay. Spelled as JSON does it, so that JSON says the same after."""
    return text.translate(SPELLED)


def line(text: str) -> str:
    """On one line, whatever it holds."""
    return shown(" ".join(text.splitlines()))


def indented(text: str) -> str:
    """What stands behind a name: a further line of it cannot pass for one of ours."""
    return shown(text).replace("\n", "\n  ")
