"""Which addresses a grader may call, where a rule is set: public ones, and those on a list.

A service runs graders that others wrote. Without a rule such a grader could reach what only this
machine's network reaches: a cloud's metadata address, a database, the cluster itself. The variable
FERRATA_GRADER_HOSTS, which the service sets for its own grader runs and for its jobs, holds the
exceptions, separated by commas: names, addresses or networks, such as "judge.internal,10.1.0.0/16".
Where it is not set, as when a specification is trained without a service, there is no rule.

A name is resolved once and the connection made to the very address that was checked, so that a name
that changes its address in between gains nothing.
"""

import asyncio
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HOSTS_VARIABLE = "FERRATA_GRADER_HOSTS"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HostRefusedError(ValueError):
    """A grader may not call this address; the message says what to do."""


@dataclass(frozen=True)
class Target:
    """Where a request goes: `url`, perhaps with an address for the name that it had."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)


def listed_hosts() -> list[str] | None:
    """The exceptions; None where there is no rule."""
    value = os.environ.get(HOSTS_VARIABLE)
    if value is None:
        return None
    return [entry.strip().lower() for entry in value.split(",") if entry.strip()]


def check_written(url: str) -> None:
    """Raises HostRefusedError when `url` names a refused address outright. Asks no name server."""
    listed, host = listed_hosts(), _host(url)
    if listed is None or host in listed:
        return
    if host == "localhost" or host.endswith(".localhost"):
        addresses = [ipaddress.ip_address("127.0.0.1")]
    elif (address := _as_address(host)) is not None:
        addresses = [address]
    else:
        return  # a name: checked when it is called, by what it then means
    _check(host, addresses, listed)


def is_listed(url: str) -> bool:
    """True when the rule names the host of `url`, or the address that stands in its place."""
    listed, host = listed_hosts() or [], _host(url)
    address = _as_address(host)
    return host in listed or (address is not None and any(_covers(e, address) for e in listed))


async def resolve(url: str) -> Target:
    """Return where to send a request for `url`. Raises HostRefusedError, OSError."""
    check_written(url)
    listed, host = listed_hosts(), _host(url)
    if listed is None or host in listed:
        return Target(url)
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A link-local address is followed by "%" and its interface.
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    _check(host, addresses, listed)
    address = f"[{addresses[0]}]" if addresses[0].version == 6 else str(addresses[0])
    pinned = parts._replace(netloc=f"{address}:{port}").geturl()
    return Target(pinned, {"host": parts.netloc}, {"sni_hostname": host})


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".")


def _as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _check(host: str, addresses: list[Address], listed: list[str]) -> None:
    for address in addresses:
        if not (_is_public(address) or any(_covers(entry, address) for entry in listed)):
            shown = host if host == str(address) else f"{host} ({address})"
            raise HostRefusedError(
                f"graders may not call {shown}, which is no public address; whoever runs this "
                "service can allow it in its setting `grader_hosts`"
            )


def _covers(entry: str, address: Address) -> bool:
    """True when a listed network or address holds `address`."""
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # the entry is a name
        return False


def _is_public(address: Address) -> bool:
    """True for what the whole internet reaches. An IPv4 address inside an IPv6 one counts."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast
