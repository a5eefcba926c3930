"""Valid seeds, and how every random choice derives its own seed."""

import hashlib


def check_seed(seed: int) -> None:
    """Raise ValueError unless every random number generator accepts a seed."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}: it must be 0 to {2**63 - 1}")


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a path such as (seed, epoch, step, "augmentation").

    It is a hash and not a sum, so the seeds of (1, 2) and (2, 1) are unrelated. NumPy's generators
    use all of it; torch's on processors uses the lower 32 bits, which are a hash likewise.
    """
    text = "/".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
