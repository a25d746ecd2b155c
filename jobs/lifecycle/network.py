"""The address by which the other nodes of a job reach this one. Guessing it from the machine's name alone fails where
that name stands for 127.0.1.1 (as Debian's installer writes it), or for a slow network beside a fast one."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import socket
import struct

_SIOCGIFADDR = 0x8915


def address(interfaces: str, other: str = "") -> str:
    """IPv4 address of this node; empty where nothing better is known than what a library finds by itself.

    Args:
        interfaces: as GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME have it: names or beginnings of names, separated by
            commas, after ``=`` whole names; what begins with ``^`` says only which not to take and is passed over.
        other: another node of the job; of the ways out of here the one to it counts.
    """
    known = sorted(name for _, name in socket.if_nameindex())
    for wanted in () if interfaces.startswith("^") else re.split("[,:]", interfaces.removeprefix("=")):
        beginning = [name for name in known if wanted and name.startswith(wanted)]
        for name in [wanted] if interfaces.startswith("=") else beginning:
            found = of_interface(name)
            if found:
                return found
    if not other:
        return ""
    try:
        target = socket.gethostbyname(other)
        here = socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
    # All nodes on one machine, or there is no other: then the name's address is as good, and one node's alone.
    if ipaddress.ip_address(target).is_loopback or target == here:
        return here
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def of_interface(name: str) -> str:
    """IPv4 address of a network interface; empty if it has none (netdevice(7), SIOCGIFADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", os.fsencode(name)[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
