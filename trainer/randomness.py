"""Randomness for private training: a stream cipher's key stream, keyed by the operating system.

Uniform numbers have 53 random bits. A normal number is half the sum, with signs, of four Box-Muller draws, each of two
words of its own, in float64; four orthogonal sums share their draws, so they are independent. With rounding to float32
only after the noise was added, this closes the floating-point attack on single draws (Mironov 2012; Holohan and Braghin
2021, arXiv 2107.10138).
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

_BLOCK_BYTES = 16
_WORD_BYTES = 8
_DRAWS = 4
_AT_ONCE = 1 << 16  # words: half a million bytes of key stream, which stay in the processor's caches
_ZEROS = memoryview(bytes(_WORD_BYTES * _AT_ONCE))


@dataclass(slots=True, kw_only=True)
class Randomness:
    """A stream of random numbers. `position` counts the 16-byte cipher blocks used so far.

    A secure stream that was copied into a forked process takes a new key there: no two processes share noise.
    """

    key: bytes = field(repr=False)
    position: int = 0
    unsafe_seeded: bool = False
    process: int = field(default_factory=os.getpid)

    @classmethod
    def secure(cls) -> "Randomness":
        """Return a stream with a fresh key from the operating system. Its key is never stored."""
        return cls(key=os.urandom(32))

    @classmethod
    def unsafe_from_seed(cls, seed: int, position: int = 0) -> "Randomness":
        """Return a stream that anyone who knows the seed can repeat: for tests, never for a guarantee."""
        return cls(key=hashlib.sha256(str(seed).encode()).digest(), position=position, unsafe_seeded=True)

    def uniform(self, count: int) -> Tensor:
        """Return `count` numbers in (0, 1], in float64."""
        parts = [_unit_interval(words) for words in self._words(count)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def normal(self, count: int) -> Tensor:
        """Return `count` standard normal numbers, in float64."""
        drawn = torch.empty(count, dtype=torch.float64)
        words_needed = 2 * _DRAWS * -(-count // _DRAWS)
        for words, part in zip(self._words(words_needed), torch.split(drawn, _AT_ONCE // 2), strict=True):
            _fill_normal(part, _unit_interval(words))
        return drawn

    @staticmethod
    def blocks_of_normal(count: int) -> int:
        """Return how far `normal(count)` moves the position."""
        return -(-2 * _DRAWS * -(-count // _DRAWS) * _WORD_BYTES // _BLOCK_BYTES)

    def poisson_sample(self, records: int, rate: float) -> list[int]:
        """Return the indices of a Poisson sample: each of `records` independently with probability `rate`."""
        indices: list[int] = torch.nonzero(self.uniform(records) <= rate).flatten().tolist()
        return indices

    def _words(self, count: int) -> Iterator[Tensor]:
        """Yield `count` random 64-bit words of the key stream (AES-256 in counter mode), some at a time.

        They are valid until the next are asked for. Every call starts at a new cipher block.
        """
        self.renew_key_of_another_process()
        encryptor = Cipher(
            algorithms.AES256(self.key), modes.CTR(self.position.to_bytes(_BLOCK_BYTES, "big"))
        ).encryptor()
        self.position += -(-count * _WORD_BYTES // _BLOCK_BYTES)
        for first in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - first) * _WORD_BYTES
            stream = bytearray(size)
            encryptor.update_into(_ZEROS[:size], stream)
            yield torch.frombuffer(stream, dtype=torch.int64)

    def renew_key_of_another_process(self) -> None:
        """Take a fresh key where a secure stream was copied into this process."""
        if not self.unsafe_seeded and self.process != os.getpid():
            self.key, self.process = os.urandom(32), os.getpid()


def _unit_interval(words: Tensor) -> Tensor:
    """Map 64-bit words to multiples of 2**-53 in (0, 1], exactly."""
    return (words >> 11).to(torch.float64).add_(2.0**52 + 1).mul_(2.0**-53)


def _fill_normal(part: Tensor, uniforms: Tensor) -> None:
    """Fill places from twice as many uniform numbers, rounded up to a multiple of 8."""
    radius, angle = uniforms.view(2, -1)
    draws = angle.mul_(2 * torch.pi).cos_().mul_(radius.log_().mul_(-0.5).sqrt_()).view(_DRAWS, -1)
    # The orthogonal matrix of Hadamard, of order 4; half of it is in the radius already.
    sums, differences = draws[::2] + draws[1::2], draws[::2] - draws[1::2]
    mixed = torch.cat(
        [sums[0] + sums[1], sums[0] - sums[1], differences[0] + differences[1], differences[0] - differences[1]]
    )
    part.copy_(mixed[: len(part)])
