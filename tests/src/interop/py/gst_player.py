"""GStreamer's rtspsrc as a player: `gst_player.py URL TRANSPORT VIDEO AUDIO [FILE]`.

VIDEO and AUDIO are what a medium goes through, as `gst-launch-1.0` reads it; the first element is named `q`, the last `s`. A program
of its own, since gst-launch links a source's late pads from several threads that take each other's links away: both then give up, and
a medium that arrives is never seen ("Delayed linking failed").

On standard output: `codec video H264`; `warning WORDS`; `error WORDS`; `end MEDIA…` once every medium has come to its end. With FILE also
`picture MICROSECONDS POINTS`, sixteen by two points of brightness in hex, and `sound MICROSECONDS SAMPLES`, the samples (16 bits, mono,
48 kHz) being appended to FILE.
"""

import os
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

url, transport = sys.argv[1:3]
shapes = dict(zip(("video", "audio"), sys.argv[3:5]))
out = open(sys.argv[5], "ab") if len(sys.argv) > 5 else None
Gst.init(None)


def say(text):
    # One write: several threads speak.
    os.write(1, (text + "\n").encode())


def micros(buffer):
    return buffer.pts // 1000 if buffer.pts != Gst.CLOCK_TIME_NONE else -1


def picture(_sink, buffer, _pad):
    say(f"picture {micros(buffer)} {buffer.extract_dup(0, 32).hex()}")


def sound(_sink, buffer, _pad):
    out.write(buffer.extract_dup(0, buffer.get_size()))
    out.flush()
    say(f"sound {micros(buffer)} {buffer.get_size() // 2}")


pipeline = Gst.Pipeline.new()
source = Gst.ElementFactory.make("rtspsrc")
source.set_property("location", url)
source.set_property("latency", 200)
Gst.util_set_object_arg(source, "protocols", transport)
# The clusters of tests have certificates of their own making.
Gst.util_set_object_arg(source, "tls-validation-flags", "0")
pipeline.add(source)
came = []
one_at_a_time = threading.Lock()


def added(_source, pad):
    caps = pad.get_current_caps().get_structure(0)
    media = caps.get_string("media")
    say(f"codec {media} {caps.get_string('encoding-name')}")
    # What follows a decodebin has a free pad too, so which one is the way in must be said.
    branch = Gst.parse_bin_from_description(shapes[media], False)
    branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("q").get_static_pad("sink")))
    if out:
        last = branch.get_by_name("s")
        last.set_property("signal-handoffs", True)
        last.connect("handoff", picture if media == "video" else sound)
    with one_at_a_time:
        came.append(media)
        pipeline.add(branch)
        branch.sync_state_with_parent()
    if pad.link(branch.get_static_pad("sink")) != Gst.PadLinkReturn.OK:
        say(f"error {media} does not go through {shapes[media]}")
        loop.quit()


source.connect("pad-added", added)
loop = GLib.MainLoop()


def told(_bus, message):
    if message.type == Gst.MessageType.ERROR:
        error, more = message.parse_error()
        say(f"error {error.message} ({' '.join((more or '').split())})")
        loop.quit()
    elif message.type == Gst.MessageType.WARNING:
        error, more = message.parse_warning()
        say(f"warning {error.message} ({' '.join((more or '').split())})")
    elif message.type == Gst.MessageType.EOS:
        say(f"end {' '.join(sorted(came))}")
        loop.quit()


bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", told)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
