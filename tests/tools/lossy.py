#!/usr/bin/env python3
"""A long and lossy link between two network namespaces, without netem: two TUN devices, and this between them.

    lossy.py --left ns-a --right ns-b --delay 40 --loss 2 --burst 4 [--rate 10000] [--seed 1]

makes the device `lossy` in both namespaces, 10.77.0.1 in the left and 10.77.0.2 in the right, and passes packets on:
each so many ms later, in order; lost in bursts of so many packets on average (Gilbert); at most so many kbit/s with a
queue of 200 ms. Both directions are alike, or `--left-loss` and `--right-loss` say the loss of what leaves each side.

With `--control`, each line on standard input changes both directions: `delay MS`, `loss PERCENT`, `corrupt PERCENT` (a bit of
so many packets is turned over), `cut` and `join`.
Prints what it passed and lost in the end (Ctrl-C). Needs the right to make devices (root, or CAP_NET_ADMIN) and the
namespaces (`ip netns add ns-a`); namespaces of your own need no rights: `unshare -Urn`.
"""

import argparse
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
QUEUE = 0.2


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def device(namespace, own, other):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"lossy{os.getpid() % 1000}{own[-1]}"
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    ip("link", "set", name, "netns", namespace)
    ip("-n", namespace, "link", "set", name, "name", "lossy")
    ip("-n", namespace, "addr", "add", own, "peer", other, "dev", "lossy")
    ip("-n", namespace, "link", "set", "lossy", "mtu", "1500", "txqueuelen", "1000", "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    return fd


class Way:
    """One direction."""

    def __init__(self, args, loss, seed):
        self.delay, self.rate = args.delay / 1000, args.rate * 125
        self.loss, self.leave = loss / 100, 1 / max(args.burst, 1)
        self.random = random.Random(seed)
        self.bad, self.busy = False, 0.0
        self.corrupt, self.cut = 0.0, False
        self.passed = self.lost = 0

    def damaged(self, packet):
        """A packet as it arrives."""
        if self.corrupt == 0 or self.random.random() >= self.corrupt:
            return packet
        at = self.random.randrange(len(packet) * 8)
        turned = bytearray(packet)
        turned[at // 8] ^= 1 << at % 8
        return bytes(turned)

    def change(self, line):
        """A line of standard input."""
        word, _, value = line.strip().partition(" ")
        if word == "delay":
            self.delay = float(value) / 1000
        elif word in ("loss", "corrupt"):
            setattr(self, word, float(value) / 100)
            # Or a burst that is under way when the loss ends would never end.
            self.bad = self.bad and self.loss > 0
        elif word in ("cut", "join"):
            self.cut = word == "cut"

    def when(self, size, now):
        """When a packet that leaves now arrives; None: it is lost."""
        if self.cut:
            self.lost += 1
            return None
        if self.loss > 0:
            enter = self.leave * self.loss / (1 - self.loss)
            turn = self.random.random()
            self.bad = turn >= self.leave if self.bad else turn < enter
        if self.rate:
            begin = max(now, self.busy)
            if begin - now > QUEUE:
                self.lost += 1
                return None
            self.busy = begin + size / self.rate
            now = self.busy
        if self.bad:
            self.lost += 1
            return None
        self.passed += 1
        return now + self.delay


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left", required=True, help="a network namespace")
    parser.add_argument("--right", required=True, help="another")
    parser.add_argument("--delay", type=float, default=40, help="of one way, ms")
    parser.add_argument("--loss", type=float, default=0, help="percent of both ways")
    parser.add_argument("--left-loss", type=float, help="percent of what leaves the left")
    parser.add_argument("--right-loss", type=float, help="percent of what leaves the right")
    parser.add_argument("--burst", type=float, default=4, help="packets that a burst loses on average")
    parser.add_argument("--rate", type=float, default=0, help="kbit/s; 0: any")
    parser.add_argument("--seed", type=int, default=1, help="of what is lost")
    parser.add_argument("--control", action="store_true", help="read changes from standard input")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    left = device(args.left, "10.77.0.1", "10.77.0.2")
    right = device(args.right, "10.77.0.2", "10.77.0.1")
    losses = [args.loss if own is None else own for own in (args.left_loss, args.right_loss)]
    ways = {left: (right, Way(args, losses[0], args.seed)), right: (left, Way(args, losses[1], args.seed + 1))}
    print("ready", flush=True)
    flying, number = [], 0
    try:
        while True:
            now = time.monotonic()
            while flying and flying[0][0] <= now:
                _, _, to, packet = heapq.heappop(flying)
                try:
                    os.write(to, packet)
                except OSError:
                    pass
            wait = min(max(flying[0][0] - now, 0), 1) if flying else 1
            watched = [left, right, *([sys.stdin] if args.control else [])]
            for fd in select.select(watched, [], [], wait)[0]:
                if fd is sys.stdin:
                    line = sys.stdin.readline()
                    args.control = line != ""
                    for _, way in ways.values():
                        way.change(line)
                    continue
                to, way = ways[fd]
                try:
                    while True:
                        packet = os.read(fd, 65536)
                        number += 1
                        at = way.when(len(packet), time.monotonic())
                        if at is not None:
                            heapq.heappush(flying, (at, number, to, way.damaged(packet)))
                except BlockingIOError:
                    pass
    except KeyboardInterrupt:
        for name, (_, way) in zip(("left to right", "right to left"), ways.values()):
            total = max(way.passed + way.lost, 1)
            print(f"{name}: {way.passed} passed, {way.lost} lost ({100 * way.lost / total:.2f} %)", file=sys.stderr)


main()
