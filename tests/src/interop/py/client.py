"""aiortc as a client: `client.py publish URL CODEC` (WHIP), `client.py play URL` (WHEP) or `client.py measure URL FILE` (WHEP).

Publishes the signal of `matrix/signal.rs`. Counts on standard output, a line a time: `connected`, `frame=12`, `sound=34`,
`codec=VP8/90000`. What is measured is told as `picture MICROSECONDS POINTS`, sixteen by two points of brightness in hex,
and `sound MICROSECONDS SAMPLES`, the samples (16 bits, mono, 48 kHz) being appended to FILE; both times are the sender's
wall clock, as its reports tell it.
"""

import asyncio
import fractions
import math
import struct
import sys
import urllib.error
import urllib.request

import aioice.ice
import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtp import RtcpSrPacket

# It leaves loopback out, which is all that tests have.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

WIDTH, HEIGHT, FPS, RATE = 320, 180, 25, 48000
EVERY, NUMBERS = 50, 65500
# Samples from pip to pip: whole turns of tone and pip, and whole frames.
TURN = RATE * EVERY // FPS


def say(text):
    print(text, flush=True)


class Clock:
    """Both tracks begin at the same time, which is when the first of them is asked for a frame."""

    start = None

    async def wait(self, seconds):
        now = asyncio.get_running_loop().time()
        if self.start is None:
            self.start = now
        await asyncio.sleep(max(0, self.start + seconds - now))


class Numbers(MediaStreamTrack):
    """Pictures with a number."""

    kind = "video"
    sent = 0

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    async def recv(self):
        await self.clock.wait(self.sent / FPS)
        number = self.sent % NUMBERS
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        plane = frame.planes[0]
        bits = [number >> min(x // (WIDTH // 16), 15) & 1 for x in range(plane.line_size)]
        above, below = (bytes(235 if bit == white else 16 for bit in bits) for white in (1, 0))
        plane.update(above * (HEIGHT // 2) + below * (HEIGHT // 2))
        for chroma in frame.planes[1:]:
            chroma.update(bytes([128]) * chroma.buffer_size)
        frame.pts, frame.time_base = self.sent * 90000 // FPS, fractions.Fraction(1, 90000)
        self.sent += 1
        say(f"frame={self.sent}")
        return frame


class Tone(MediaStreamTrack):
    """440 Hz, and a pip with each fiftieth picture; 20 ms a frame."""

    kind = "audio"
    at = 0

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.turn = struct.pack(f"<{TURN}h", *map(self.sample, range(TURN)))

    async def recv(self):
        await self.clock.wait(self.at / RATE)
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        start = self.at % TURN * 2
        frame.planes[0].update(self.turn[start : start + 1920])
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.at, fractions.Fraction(1, RATE)
        self.at += 960
        return frame

    @staticmethod
    def sample(n):
        pip = n < RATE // 10
        level = 0.1 * math.sin(2 * math.pi * 440 * n / RATE)
        return int(32767 * (level + (0.5 * math.sin(2 * math.pi * 2000 * n / RATE) if pip else 0)))


async def count(receiver):
    n, name = 0, "frame" if receiver.track.kind == "video" else "sound"
    while True:
        await receiver.track.recv()
        n += 1
        say(f"{name}={n}")


# By receiver: wall clock (seconds) and RTP time of the last report.
reports = {}


async def handle_rtcp(self, packet, handle=RTCRtpReceiver._handle_rtcp_packet):
    if isinstance(packet, RtcpSrPacket):
        info = packet.sender_info
        reports[self] = (info.ntp_timestamp / 2**32, info.rtp_timestamp)
    await handle(self, packet)


RTCRtpReceiver._handle_rtcp_packet = handle_rtcp


def wall_us(receiver, pts, clock):
    origin = receiver._RTCRtpReceiver__timestamp_mapper._origin
    ntp, rtp = reports[receiver]
    ticks = (origin + pts - rtp + 2**31) % 2**32 - 2**31
    return round((ntp + ticks / clock) * 1e6)


async def measure(receiver, out):
    """Tells of frames once a report tells when they were; until then they wait."""
    video = receiver.track.kind == "video"
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    waiting = []
    first = True
    while True:
        frame = await receiver.track.recv()
        if first:
            say(f"first {receiver.track.kind}")
            first = False
        pts, clock = frame.pts, frame.time_base.denominator
        if video:
            small = frame.reformat(16, 2, "gray", interpolation="AREA").planes[0]
            rows = bytes(small)
            waiting.append((pts, rows[:16] + rows[small.line_size : small.line_size + 16]))
        else:
            samples = b"".join(bytes(f.planes[0])[: f.samples * 2] for f in resampler.resample(frame))
            waiting.append((pts, samples))
        if receiver not in reports:
            continue
        for pts, data in waiting:
            at = wall_us(receiver, pts, clock)
            if video:
                say(f"picture {at} {data.hex()}")
            else:
                out.write(data)
                out.flush()
                say(f"sound {at} {len(data) // 2}")
        waiting.clear()


async def exchange(pc, url):
    await pc.setLocalDescription(await pc.createOffer())
    offer = pc.localDescription.sdp.encode()
    request = urllib.request.Request(url, offer, {"Content-Type": "application/sdp"}, method="POST")

    def post():
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            say(f"refused {error.code} {error.read().decode()}")
            raise

    answer = await asyncio.get_running_loop().run_in_executor(None, post)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))


async def main(what, url, more=None):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    ended = asyncio.Event()

    @pc.on("connectionstatechange")
    def changed():
        say(pc.connectionState)
        if pc.connectionState in ("failed", "closed"):
            ended.set()

    tasks = []
    if what == "publish":
        clock = Clock()
        pc.addTrack(Tone(clock))
        pc.addTrack(Numbers(clock))
        wanted = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType in (more, "video/rtx")]
        for transceiver in pc.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(wanted)
    else:
        pc.addTransceiver("video", direction="recvonly")
        pc.addTransceiver("audio", direction="recvonly")
        out = open(more, "ab") if what == "measure" else None

        @pc.on("track")
        def on_track(track):
            receiver = next(r for r in pc.getReceivers() if r.track == track)
            work = measure(receiver, out) if out else count(receiver)
            tasks.append(asyncio.ensure_future(work))

    await exchange(pc, url)
    for line in pc.remoteDescription.sdp.splitlines():
        if line.startswith("a=rtpmap:") and "rtx" not in line:
            say(f"codec={line.split(' ')[1]}")
    await ended.wait()


asyncio.run(main(*sys.argv[1:]))
