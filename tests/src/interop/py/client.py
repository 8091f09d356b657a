"""aiortc as a client: `client.py publish URL CODEC` (WHIP) or `client.py play URL` (WHEP).

Counts on standard output, a line a time: `connected`, `frame=12`, `sound=34`, `codec=video/VP8`, `ended`.
"""

import asyncio
import fractions
import math
import struct
import sys
import urllib.request

import aioice.ice
import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.rtcrtpsender import RTCRtpSender

# It leaves loopback out, which is all that tests have.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

WIDTH, HEIGHT, RATE = 320, 180, 48000


def say(text):
    print(text, flush=True)


class Bars(VideoStreamTrack):
    """A bar that moves, 30 pictures a second."""

    sent = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, (40, 128, 128)):
            rows = bytearray([value]) * plane.buffer_size
            if value == 40:
                at = self.sent * 4 % (WIDTH - 32)
                for row in range(HEIGHT):
                    start = row * plane.line_size + at
                    rows[start : start + 32] = b"\xeb" * 32
            plane.update(bytes(rows))
        frame.pts, frame.time_base = pts, time_base
        self.sent += 1
        say(f"frame={self.sent}")
        return frame


class Tone(MediaStreamTrack):
    """440 Hz, 20 ms a frame."""

    kind = "audio"
    at = 0
    start = None

    async def recv(self):
        loop = asyncio.get_running_loop()
        if self.start is None:
            self.start = loop.time()
        await asyncio.sleep(max(0, self.start + self.at / RATE - loop.time()))
        samples = [int(8000 * math.sin(2 * math.pi * 440 * (self.at + n) / RATE)) for n in range(960)]
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        frame.planes[0].update(struct.pack("<960h", *samples))
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.at, fractions.Fraction(1, RATE)
        self.at += 960
        return frame


async def count(track):
    n, name = 0, "frame" if track.kind == "video" else "sound"
    while True:
        await track.recv()
        n += 1
        say(f"{name}={n}")


async def exchange(pc, url):
    await pc.setLocalDescription(await pc.createOffer())
    offer = pc.localDescription.sdp.encode()
    request = urllib.request.Request(url, offer, {"Content-Type": "application/sdp"}, method="POST")

    def post():
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    answer = await asyncio.get_running_loop().run_in_executor(None, post)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))


async def main(what, url, codec=None):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    ended = asyncio.Event()

    @pc.on("connectionstatechange")
    def changed():
        say(pc.connectionState)
        if pc.connectionState in ("failed", "closed"):
            ended.set()

    tasks = []
    if what == "publish":
        pc.addTrack(Tone())
        pc.addTrack(Bars())
        wanted = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType in (codec, "video/rtx")]
        for transceiver in pc.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(wanted)
    else:
        pc.addTransceiver("video", direction="recvonly")
        pc.addTransceiver("audio", direction="recvonly")

        @pc.on("track")
        def on_track(track):
            tasks.append(asyncio.ensure_future(count(track)))

    await exchange(pc, url)
    for line in pc.remoteDescription.sdp.splitlines():
        if line.startswith("a=rtpmap:") and "rtx" not in line:
            say(f"codec={line.split(' ')[1]}")
    await ended.wait()


asyncio.run(main(*sys.argv[1:]))
