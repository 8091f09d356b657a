// Headwater's client for browsers: publish a stream, or watch one, and stay with it. No dependency; a module to import:
//
//   import { publish, subscribe } from "https://manager.example:5443/client.js";
//
//   const watching = subscribe("live/demo", { video: document.querySelector("video") });
//   watching.addEventListener("state", () => console.log(watching.state, watching.text));
//
//   const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
//   const publishing = publish("live/mine", media);
//   publishing.stop();
//
// The manager is asked which node to go to (that is the host that this file came from, unless `manager` says
// otherwise), then WHIP (RFC 9725) or WHEP leads to that node. When a connection is lost, the name is taken, the
// publisher is away or the node goes, the session tries again by itself until stop() is called.
//
// Options of both:
//   manager   the manager's address, such as "https://manager.example:5443"
//   endpoint  a WHIP or WHEP address to use, the manager is not asked then
//   region    the region to prefer, several with commas between; strict: true takes no other
//   query     further query parameters for manager and node, such as { token: "…" }
//   ice       an RTCConfiguration's iceServers; none are needed, nodes have public addresses
// Of publish():   bitrate  the most bits a second of the picture (default 3,000,000)
// Of subscribe(): video    a <video> that shows the stream; delay  milliseconds to buffer (default 0)
//
// A session tells by events: "state", "notices", "stats" (each second), "track" (subscribe). Its fields:
//   state    "connecting", "live", "waiting" (for a publisher), "refused" (it will not try again), "stopped"
//   text     the same in words
//   status   the HTTP status of the last refusal; 0: none
//   notices  sentences for the user, such as why there is no sound
//   sound    what the sound is made of, where the node converts it; null: it comes as it was published
//   node     the host that it is connected to
//   numbers  the last numbers: kbps, loss (0 to 1), rtt_ms, delay_ms, width, height, fps, video, audio (codecs)
//   pc       the RTCPeerConnection; stream: the MediaStream

const HOME = new URL(import.meta.url).origin;

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** An answer that is no success, in words. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function wordsOf(response) {
  const text = (await response.text().catch(() => "")).trim();
  try {
    const value = JSON.parse(text);
    return value.errorMessage || value.error || text;
  } catch {
    return text.slice(0, 500) || `the server answered ${response.status}`;
  }
}

function notices(response) {
  return (response.headers.get("Headwater-Notice") || "")
    .split(" | ")
    .filter(Boolean)
    .map((text) => {
      try {
        return decodeURIComponent(text);
      } catch {
        return text;
      }
    });
}

/** Ends a session at its node, even while the page goes away. */
function end(resource) {
  if (resource) fetch(resource, { method: "DELETE", keepalive: true }).catch(() => {});
}

/**
 * Where to publish or watch: addresses to try in turn. The manager's choice comes first, its own host last, for
 * instance when it is no manager.
 */
async function endpoints(key, action, kind, options) {
  if (options.endpoint) return [options.endpoint];
  const manager = (options.manager || HOME).replace(/\/+$/, "");
  const own = `${manager}/${kind}/${key}`;
  const query = new URLSearchParams({ action, ...options.query });
  if (options.region) query.set("region", options.region);
  if (options.strict) query.set("strict", "true");
  let response;
  try {
    response = await fetch(`${manager}/streammanager/api/4.0/event/${key}?${query}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(4000),
    });
  } catch {
    return [own];
  }
  if (!response.ok) {
    // Whoever insists on a region must not end up in another.
    if (options.strict) throw new Refused(response.status, await wordsOf(response));
    return [own];
  }
  const answer = await response.json().catch(() => null);
  const url = answer?.urls?.[kind];
  // A page from https:// may not call http://, so there only the manager's host itself is left.
  const blocked = location.protocol === "https:" && !url?.startsWith("https:");
  return url && !blocked && url !== own ? [url, own] : [own];
}

/** H.264 first: it is what every viewer of a cluster can get. Answers whether the browser has it. */
function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs ?? [];
  const rank = (c) =>
    c.mimeType.toLowerCase() !== "video/h264" ? 2 : /packetization-mode=1/.test(c.sdpFmtpLine ?? "") ? 0 : 1;
  if (!codecs.some((c) => rank(c) < 2)) return false;
  transceiver.setCodecPreferences?.([...codecs].sort((a, b) => rank(a) - rank(b)));
  return true;
}

/** Numbers of a connection; read once a second. */
class Numbers {
  constructor(pc, kind) {
    this.pc = pc;
    this.kind = kind;
    this.before = new Map();
  }

  delta(name, value) {
    const before = this.before.get(name) ?? 0;
    this.before.set(name, value);
    return Math.max(0, value - before);
  }

  async read() {
    const report = await this.pc.getStats();
    const n = { flow: { video: 0, audio: 0 }, bytes: { video: 0, audio: 0 }, frames: 0 };
    const now = performance.now();
    const seconds = this.at ? (now - this.at) / 1000 : 0;
    this.at = now;
    let lost = 0;
    let packets = 0;
    for (const s of report.values()) {
      if (s.type === this.kind) {
        const total = s.bytesReceived ?? s.bytesSent ?? 0;
        n.flow[s.kind] += this.delta(`bytes ${s.id}`, total);
        n.bytes[s.kind] += total;
        lost += this.delta(`lost ${s.id}`, s.packetsLost ?? 0);
        packets += this.delta(`packets ${s.id}`, s.packetsReceived ?? s.packetsSent ?? 0);
        const codec = report.get(s.codecId)?.mimeType?.split("/")[1];
        if (codec && total > 0) n[s.kind] = codec;
        if (s.kind !== "video") continue;
        if (s.frameWidth) [n.width, n.height] = [s.frameWidth, s.frameHeight];
        if (s.framesPerSecond !== undefined) n.fps = s.framesPerSecond;
        n.frames = s.framesDecoded ?? s.framesEncoded ?? 0;
        const out = this.delta("emitted", s.jitterBufferEmittedCount ?? 0);
        const held = this.delta("held", s.jitterBufferDelay ?? 0);
        if (out > 0) n.buffer_ms = (1000 * held) / out;
        n.freezes = s.freezeCount;
        n.nacks = s.nackCount;
      } else if (s.type === "remote-inbound-rtp") {
        lost += this.delta(`lost ${s.id}`, s.packetsLost ?? 0);
      } else if (s.type === "transport" && s.selectedCandidatePairId) {
        const rtt = report.get(s.selectedCandidatePairId)?.currentRoundTripTime;
        if (rtt !== undefined) n.rtt_ms = rtt * 1000;
      }
    }
    if (seconds > 0) {
      n.kbps = ((n.flow.video + n.flow.audio) * 8) / 1000 / seconds;
      n.loss = lost / Math.max(1, lost + packets);
    }
    if (n.buffer_ms !== undefined) n.delay_ms = n.buffer_ms + (n.rtt_ms ?? 0) / 2;
    return n;
  }
}

/** A stream that is published or watched. See the top of this file. */
export class Session extends EventTarget {
  #run = null;
  #resource = null;
  #pause = 1000;
  #wake = () => {};

  constructor(key, media, options) {
    super();
    this.key = String(key).replace(/^\/+|\/+$/g, "");
    this.publishes = media !== null;
    this.options = options;
    this.stream = media;
    this.notices = [];
    this.sound = null;
    this.status = 0;
    this.node = null;
    this.numbers = null;
    this.pc = null;
    this.state = "";
    this.text = "";
    this.#run = {};
    this.#leave = () => end(this.#resource);
    addEventListener("pagehide", this.#leave);
    this.#keep(this.#run);
  }

  #leave;

  /** Ends it for good. */
  stop() {
    if (!this.#run) return;
    this.#finish("stopped", "Stopped");
  }

  #finish(state, text) {
    this.#run = null;
    removeEventListener("pagehide", this.#leave);
    end(this.#resource);
    this.#resource = null;
    this.pc?.close();
    this.#wake();
    this.#tell(state, text);
  }

  #say(type) {
    this.dispatchEvent(new Event(type));
  }

  #tell(state, text) {
    if (state === this.state && text === this.text) return;
    this.state = state;
    this.text = text;
    this.#say("state");
  }

  #note(notices) {
    this.notices = notices;
    this.#say("notices");
  }

  /** Waits, but not beyond stop(). */
  #rest(ms) {
    return Promise.race([wait(ms), new Promise((wake) => (this.#wake = wake))]);
  }

  async #keep(run) {
    // Whoever made it can listen before the first event comes.
    await null;
    if (!window.RTCPeerConnection) return this.#finish("refused", "This browser has no WebRTC.");
    this.#tell("connecting", "Connecting…");
    while (this.#run === run) {
      try {
        this.status = 0;
        await this.#once(run);
      } catch (error) {
        if (this.#run !== run) return;
        this.status = error.status ?? 0;
        if (this.#fatal(error)) return this.#finish("refused", error.message);
        if (!this.publishes && error.status === 404) {
          this.#tell("waiting", `Waiting for a publisher of ${this.key}…`);
          await this.#rest(1000);
        } else {
          this.#tell("connecting", `${error.message} – trying again…`);
          // Longer each time, and not all at once.
          await this.#rest(this.#pause * (0.8 + 0.4 * Math.random()));
          this.#pause = Math.min(this.#pause * 1.5, 8000);
        }
      }
    }
  }

  /** What no second try can change. */
  #fatal(error) {
    const again = [404, 409, 429];
    return error instanceof Refused && error.status < 500 && !again.includes(error.status);
  }

  async #once(run) {
    const config = { bundlePolicy: "max-bundle" };
    if (this.options.ice) config.iceServers = this.options.ice;
    const pc = new RTCPeerConnection(config);
    this.pc = pc;
    try {
      if (this.publishes) this.#send(pc);
      else this.#receive(pc);
      const [action, kind] = this.publishes ? ["broadcast", "whip"] : ["subscribe", "whep"];
      const addresses = await endpoints(this.key, action, kind, this.options);
      await this.#negotiate(run, pc, addresses);
      await this.#watch(run, pc);
    } finally {
      pc.close();
      end(this.#resource);
      this.#resource = null;
      this.node = null;
      this.numbers = null;
    }
  }

  #send(pc) {
    for (const track of this.stream.getTracks()) {
      const options = { direction: "sendonly", streams: [this.stream] };
      if (track.kind === "video") options.sendEncodings = [{ maxBitrate: this.options.bitrate ?? 3_000_000 }];
      const transceiver = pc.addTransceiver(track, options);
      if (track.kind === "video" && !preferH264(transceiver)) {
        this.#note(["This browser cannot encode H.264, so the node may refuse the picture."]);
      }
    }
  }

  #receive(pc) {
    const stream = new MediaStream();
    this.stream = stream;
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    pc.addEventListener("track", (event) => {
      stream.addTrack(event.track);
      // Live: rather a skipped frame than a growing delay.
      if ("jitterBufferTarget" in event.receiver) event.receiver.jitterBufferTarget = this.options.delay ?? 0;
      this.#say("track");
    });
  }

  /** Nodes are ICE-lite and learn our address from our checks, so nothing is gathered first. */
  async #negotiate(run, pc, addresses) {
    await pc.setLocalDescription();
    let unreachable = null;
    for (const address of addresses) {
      const url = new URL(address);
      for (const [name, value] of Object.entries(this.options.query ?? {})) url.searchParams.set(name, value);
      let response;
      try {
        response = await fetch(url, {
          method: "POST",
          headers: { "Content-Type": "application/sdp" },
          body: pc.localDescription.sdp,
          signal: AbortSignal.timeout(10000),
        });
      } catch (error) {
        unreachable = new Error(`${url.host} cannot be reached (${error.message})`);
        continue;
      }
      if (response.status !== 201) throw new Refused(response.status, await wordsOf(response));
      const place = response.headers.get("Location");
      this.#resource = place ? new URL(place, url).href : null;
      const answer = await response.text();
      if (this.#run !== run) throw new Error("stopped meanwhile");
      await pc.setRemoteDescription({ type: "answer", sdp: answer });
      this.node = url.host;
      this.sound = response.headers.get("Headwater-Sound");
      this.#note(notices(response));
      const video = this.options.video;
      if (video && !this.publishes) {
        video.srcObject = this.stream;
        video.play().catch(() => {});
      }
      this.#tell("connecting", this.publishes ? "Connecting…" : "Connected to the node, waiting for the picture…");
      return;
    }
    throw unreachable;
  }

  /** Looks at the connection each second; throws when it is no good any more. */
  async #watch(run, pc) {
    const numbers = new Numbers(pc, this.publishes ? "outbound-rtp" : "inbound-rtp");
    let silent = 0;
    let broken = 0;
    while (this.#run === run) {
      await this.#rest(1000);
      if (this.#run !== run) return;
      if (["failed", "closed"].includes(pc.connectionState)) throw new Error("the connection was lost");
      broken = pc.connectionState === "connected" ? 0 : broken + 1;
      if (broken > 10) throw new Error("no media path to the node; is its UDP port open?");
      // The node ends the session when nobody came back in time; then it answers no more checks of the path.
      if (!this.publishes && silent >= 3 && broken >= 1) throw new Error("the node has ended the session");
      const n = await numbers.read();
      this.numbers = n;
      silent = n.flow.video + n.flow.audio > 0 ? 0 : silent + 1;
      if (this.publishes) {
        if (broken === 0) this.#live();
      } else {
        if (silent > 40) throw new Error("nothing came for too long");
        const came = n.bytes.video + n.bytes.audio > 0;
        if (silent >= 3 && came) this.#tell("waiting", "The publisher is away; waiting for it…");
        else if (n.frames > 0 || (n.bytes.audio > 0 && n.bytes.video === 0)) this.#live();
        else if (n.bytes.video > 0) this.#tell("connecting", "Receiving, waiting for a key frame…");
      }
      this.#say("stats");
    }
  }

  #live() {
    this.#pause = 1000;
    this.#tell("live", "Live");
  }
}

/** Publishes a MediaStream under a name such as "live/mine". */
export const publish = (key, media, options = {}) => new Session(key, media, options);

/** Watches a stream such as "live/demo". */
export const subscribe = (key, options = {}) => new Session(key, null, options);
