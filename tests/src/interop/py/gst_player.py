"""GStreamer's rtspsrc as a player that is measured: `gst_player.py URL TRANSPORT FILE`.

On standard output: `picture MICROSECONDS POINTS`, sixteen by two points of brightness in hex, and `sound MICROSECONDS SAMPLES`,
the samples (16 bits, mono, 48 kHz) being appended to FILE; `codec video H264`; `error WORDS`.
"""

import os
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

url, transport, path = sys.argv[1:4]
Gst.init(None)
out = open(path, "ab")


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
pipeline.add(source)
SHAPES = {
    "video": (
        "queue name=q ! decodebin ! videoconvert ! videoscale"
        " ! video/x-raw,format=GRAY8,width=16,height=2 ! fakesink name=s sync=true signal-handoffs=true"
    ),
    "audio": (
        "queue name=q ! decodebin ! audioconvert ! audioresample"
        " ! audio/x-raw,format=S16LE,rate=48000,channels=1 ! fakesink name=s sync=true signal-handoffs=true"
    ),
}


def added(_source, pad):
    caps = pad.get_current_caps().get_structure(0)
    media = caps.get_string("media")
    say(f"codec {media} {caps.get_string('encoding-name')}")
    # What follows decodebin has a free pad too, so which one is the way in must be said.
    branch = Gst.parse_bin_from_description(SHAPES[media], False)
    branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("q").get_static_pad("sink")))
    branch.get_by_name("s").connect("handoff", picture if media == "video" else sound)
    pipeline.add(branch)
    branch.sync_state_with_parent()
    pad.link(branch.get_static_pad("sink"))


source.connect("pad-added", added)
loop = GLib.MainLoop()


def told(_bus, message):
    if message.type == Gst.MessageType.ERROR:
        error, more = message.parse_error()
        say(f"error {error.message} ({' '.join((more or '').split())})")
        loop.quit()
    elif message.type == Gst.MessageType.WARNING:
        error, _more = message.parse_warning()
        say(f"warning {error.message}")
    elif message.type == Gst.MessageType.EOS:
        loop.quit()


bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", told)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
