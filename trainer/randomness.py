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
_GROUP = 1 << 16
"""Words that are mixed into normal numbers together: half a million bytes, which stay in a processor's caches."""
_GROUPS_OF_A_GPU = 64
"""Groups that a GPU mixes at once: enough to fill it, few enough that they cost it no memory to speak of."""
_ZEROS = memoryview(bytes(_WORD_BYTES * _GROUP * _GROUPS_OF_A_GPU))
_CPU = torch.device("cpu")


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
        parts = [_unit_interval(words) for words in self._words(count, at_once=_GROUP)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def normal(self, count: int, device: torch.device = _CPU) -> Tensor:
        """Return `count` standard normal numbers, in float64, on a device.

        The key stream is the processor's; the rest is computed on the device. What it draws is the same everywhere, up
        to the rounding of logarithms and cosines.
        """
        at_once = _GROUP if device.type == "cpu" else _GROUPS_OF_A_GPU * _GROUP
        drawn = torch.empty(count, dtype=torch.float64, device=device)
        words_needed = 2 * _DRAWS * -(-count // _DRAWS)
        words = self._words(words_needed, at_once=at_once, pinned=device.type == "cuda")
        for part, of_part in zip(torch.split(drawn, at_once // 2), words, strict=True):
            _fill_normal(part, of_part.to(device, non_blocking=True))
        return drawn

    @staticmethod
    def blocks_of_normal(count: int) -> int:
        """Return how far `normal(count)` moves the position."""
        return -(-2 * _DRAWS * -(-count // _DRAWS) * _WORD_BYTES // _BLOCK_BYTES)

    def poisson_sample(self, records: int, rate: float) -> list[int]:
        """Return the indices of a Poisson sample: each of `records` independently with probability `rate`."""
        indices: list[int] = torch.nonzero(self.uniform(records) <= rate).flatten().tolist()
        return indices

    def _words(self, count: int, *, at_once: int, pinned: bool = False) -> Iterator[Tensor]:
        """Yield `count` random 64-bit words of the key stream (AES-256 in counter mode), `at_once` at a time.

        Every call starts at a new cipher block.
        """
        self.renew_key_of_another_process()
        encryptor = Cipher(
            algorithms.AES256(self.key), modes.CTR(self.position.to_bytes(_BLOCK_BYTES, "big"))
        ).encryptor()
        self.position += -(-count * _WORD_BYTES // _BLOCK_BYTES)
        for first in range(0, count, at_once):
            words = torch.empty(min(at_once, count - first), dtype=torch.int64, pin_memory=pinned)
            stream = words.numpy().data.cast("B")
            encryptor.update_into(_ZEROS[: len(stream)], stream)
            yield words

    def renew_key_of_another_process(self) -> None:
        """Take a fresh key where a secure stream was copied into this process."""
        if not self.unsafe_seeded and self.process != os.getpid():
            self.key, self.process = os.urandom(32), os.getpid()


def _unit_interval(words: Tensor) -> Tensor:
    """Map 64-bit words to multiples of 2**-53 in (0, 1], exactly."""
    return (words >> 11).to(torch.float64).add_(2.0**52 + 1).mul_(2.0**-53)


def _fill_normal(part: Tensor, words: Tensor) -> None:
    """Fill places from twice as many words, rounded up to a multiple of 8: whole groups together, then the rest."""
    whole = len(words) // _GROUP * _GROUP
    for places, of_places in ((part[: whole // 2], words[:whole]), (part[whole // 2 :], words[whole:])):
        if len(places):
            groups = of_places.view(-1, min(len(of_places), _GROUP))
            places.copy_(_normal_groups(_unit_interval(groups)).flatten()[: len(places)])


def _normal_groups(uniforms: Tensor) -> Tensor:
    """Return half as many normal numbers as uniform ones, for each group: from [groups, uniforms]."""
    radius, angle = uniforms.view(len(uniforms), 2, -1).unbind(1)
    draws = angle.mul_(2 * torch.pi).cos_().mul_(radius.log_().mul_(-0.5).sqrt_()).view(len(uniforms), _DRAWS, -1)
    # The orthogonal matrix of Hadamard, of order 4; half of it is in the radius already.
    sums, differences = draws[:, ::2] + draws[:, 1::2], draws[:, ::2] - draws[:, 1::2]
    (sum_0, sum_1), (difference_0, difference_1) = sums.unbind(1), differences.unbind(1)
    return torch.cat([sum_0 + sum_1, sum_0 - sum_1, difference_0 + difference_1, difference_0 - difference_1], dim=1)
