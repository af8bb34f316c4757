"""Which addresses a process listens on, as the kernel tells."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTEN = "0A"


def listening_addresses(pid: int) -> list[IPv4Address | IPv6Address]:
    """Return the address of every TCP socket on which the process accepts connections."""
    sockets = {str(place.readlink()) for place in Path(f"/proc/{pid}/fd").iterdir() if place.is_symlink()}
    return [
        _address(fields[1].partition(":")[0])
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == _LISTEN and f"socket:[{fields[9]}]" in sockets
    ]


def _address(text: str) -> IPv4Address | IPv6Address:
    """Read an address that the kernel prints as 32-bit words in the machine's (little-endian) order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
