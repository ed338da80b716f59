"""Operators' private keys: made and read by the command line only. The daemon never imports this module."""

import os
from pathlib import Path

from securesystemslib.signer import CryptoSigner


class NoKey(LookupError):
    """There is no such key, or not one alone."""


def create(name: str, directory: Path) -> CryptoSigner:
    """A new Ed25519 key in NAME.pem (PKCS 8, mode 0600). FileExistsError rather than overwriting one."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = CryptoSigner.generate_ed25519()
    descriptor = os.open(directory / f"{name}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(signer.private_bytes)
        file.flush()
        os.fsync(file.fileno())
    return signer


def load(name: str | None, directory: Path) -> tuple[str, CryptoSigner]:
    """The named operator's key, or the only one there is. NoKey says what to do."""
    present = sorted(path.stem for path in directory.glob("*.pem"))
    if name is None and len(present) != 1:
        hint = "name one with --operator" if present else "make one with `honed operator add NAME`"
        raise NoKey(f"{directory} holds {len(present)} operator keys; {hint}")
    chosen = name or present[0]
    if chosen not in present:
        raise NoKey(f"{directory} holds no key {chosen!r}; make one with `honed operator add {chosen}`")
    return chosen, _read(directory / f"{chosen}.pem")


def public_hex(signer: CryptoSigner) -> str:
    return str(signer.public_key.to_dict()["keyval"]["public"])


def _read(path: Path) -> CryptoSigner:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if path.stat().st_mode & 0o077:
        raise NoKey(f"{path} is readable by others; `chmod 600 {path}` and consider the key known")
    private = load_pem_private_key(path.read_bytes(), password=None)
    return CryptoSigner(private)
