"""Text from elsewhere, made fit for a terminal and for a line of a log."""


def printable(text: str) -> str:
    """*text* with everything escaped that is not a visible character or a space."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
