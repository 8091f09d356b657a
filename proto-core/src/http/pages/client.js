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
// otherwise), then WHIP (RFC 9725), WHEP or a websocket leads to that node; from a secure page through the manager, from
// where it goes on in plain text. Media goes straight to the node. When a connection is lost, the name is taken, the
// publisher is away or the node goes, the session asks the manager anew and tries again by itself until stop() is called.
// While only the publisher or its node is away, a viewer stays where it is: its node holds it and goes on when they are
// back.
//
// Options of both:
//   manager   the manager's address, such as "https://manager.example:5443"
//   via       "whip" (the default: WHIP and WHEP) or "ws" (the websocket of the stream-manager dialect)
//   endpoint  an address to use, of that kind; the manager is not asked then
//   region    the region to prefer, several with commas between; strict: true takes no other
//   query     further query parameters for manager and node, such as { token: "…" }
//   ice       an RTCConfiguration's iceServers; none are needed, nodes have public addresses
//   data      true: a data channel, for send() and "data" (default: with "ws" only)
// Of publish():   bitrate  the most bits a second of the picture (default 3,000,000)
//                 simulcast  send the picture in three sizes, so that each viewer gets one that fits its link (by default one)
// Of subscribe(): video    a <video> that shows the stream; delay  milliseconds to buffer (default 0)
//
// Why WHIP and WHEP are the default: one request and its answer are all that passes before media does, nothing stays open
// at the manager, every HTTP proxy lets them through, and a viewer without a data channel costs its node least. The
// websocket tells more: each step by itself, and in words why something ended, at once.
//
// Methods: stop(); of a publisher send(method, data), to all viewers wherever they are, and mute({ muteAudio, muteVideo }),
// which tells the viewers. Both need the data channel or the websocket.
//
// A session tells by events: "state", "notices", "stats" (each second), "track" (subscribe), "data" (subscribe; its
// `detail` is { method, data }). Its fields:
//   state    "connecting", "live", "waiting" (for a publisher), "refused" (it will not try again), "stopped"
//   text     the same in words
//   status   the HTTP status of the last refusal; 0: none
//   notices  sentences for the user, such as why there is no sound
//   sound    what the sound is made of, where the node converts it; null: it comes as it was published
//   node     the host that it is connected to
//   numbers  the last numbers: kbps, loss (0 to 1), rtt_ms, delay_ms, width, height, fps, video, audio (codecs), over ("udp", "tcp")
//   pc       the RTCPeerConnection; stream: the MediaStream

const HOME = new URL(import.meta.url).origin;

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** An answer that is no success, in words. What programs go by, `(not_live)` at the end of the words, is in `code`. */
export class Refused extends Error {
  constructor(status, text) {
    const [, words, code] = /^(.*?)(?: \(([a-z0-9_]+)\))?$/s.exec(text);
    super(words || text);
    this.status = status;
    this.code = code;
  }
}

/** The label of the data channel on which both sides go on talking. */
const CHANNEL = "red5pro";

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
 * Where to publish or watch: addresses to try in turn. The manager's choice comes first, then its proxy; only a host that
 * is no manager is asked itself.
 */
async function endpoints(key, publishes, kind, options) {
  if (options.endpoint) return [options.endpoint];
  const manager = (options.manager || HOME).replace(/\/+$/, "");
  const action = publishes ? "broadcast" : "subscribe";
  const app = key.slice(0, key.lastIndexOf("/"));
  const sockets = manager.replace(/^http/, "ws");
  const own = kind === "ws" ? `${sockets}/${app}/` : `${manager}/${kind}/${key}`;
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
    const words = await wordsOf(response);
    // A node that is no manager says so, and is one to publish or play at; a manager's no is a no. Whoever insists on a
    // region must not end up in another.
    if (!options.strict && /this node is no manager/.test(words)) return [own];
    throw new Refused(response.status, words);
  }
  const answer = await response.json().catch(() => null);
  const url = answer?.urls?.[kind];
  // A page from https:// may not talk to http://, and an old manager may name that.
  const blocked = location.protocol === "https:" && !/^(https|wss):/.test(url ?? "");
  // It is a manager, so its proxy can choose again if that node has gone meanwhile.
  const proxy = `${kind === "ws" ? sockets : manager}/as/v1/proxy/${kind === "ws" ? `ws/${publishes ? "publish" : "subscribe"}` : kind}/${key}`;
  if (!url || blocked) return [proxy];
  return options.strict || url === own ? [url] : [url, proxy];
}

/** A copy of an address with more in its query. */
function withQuery(address, parameters) {
  const url = new URL(address);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url;
}

/**
 * One conversation in the stream-manager dialect: over a websocket, then over a data channel once the node says that it
 * has it. `heard` gets what nobody waits for: "candidate", "data", "unpublished"; `ended` why it is over.
 */
class Conversation {
  #socket;
  #channel = null;
  #switched = false;
  #waits = new Map();
  #over = null;

  constructor(url, heard, ended) {
    this.heard = heard;
    this.ended = ended;
    if (!url) return;
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = (event) => this.#take(event.data);
    this.#socket.onclose = (event) => {
      if (this.#switched) return;
      const unopened = event.code === 1006 && `the websocket to ${url.host} was refused or broke`;
      this.end(new Error(event.reason || unopened || `the node closed the websocket (code ${event.code})`));
    };
  }

  /** Goes on over this channel when the node offers that; at once where there is no websocket. */
  use(channel) {
    this.#channel = channel;
    this.#switched = !this.#socket;
    channel.onmessage = (event) => this.#take(event.data);
    channel.onclose = () => this.#switched && this.end(new Error("the node has ended the session"));
  }

  get speaks() {
    return this.#switched ? this.#channel?.readyState === "open" : this.#socket?.readyState === WebSocket.OPEN;
  }

  say(message) {
    if (this.speaks) (this.#switched ? this.#channel : this.#socket).send(JSON.stringify(message));
    return this.speaks;
  }

  /** The message of this name, which may have come already; throws when that cannot be any more. */
  wait(name, ms = 10000) {
    const wait = this.#waits.get(name) ?? this.#wait(name);
    if (this.#over) wait.fail(this.#over);
    const timer = setTimeout(() => wait.fail(new Error(`the node did not answer within ${ms / 1000} s (${name})`)), ms);
    return wait.promise.finally(() => clearTimeout(timer));
  }

  #wait(name) {
    const wait = {};
    wait.promise = new Promise((done, fail) => Object.assign(wait, { done, fail }));
    // Whoever does not wait is not to hear of it as an error of the page.
    wait.promise.catch(() => {});
    this.#waits.set(name, wait);
    return wait;
  }

  #take(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const data = message.data ?? {};
    if (data.type === "error") {
      // Without words they follow with the close of the websocket.
      if (data.message) this.end(new Refused(data.status ?? 500, data.message));
    } else if (data.sdp) this.#came(data.sdp.type, data.sdp.sdp);
    else if (data.candidate) this.heard("candidate", data.candidate);
    else if (message.type === "metadata") this.heard("data", { method: message.method, data: message.data });
    else if (message.send) this.heard("data", { method: message.send.method, data: message.send.data });
    else if (data.code === "NetConnection.DataChannel.Available") this.#switch();
    else if (data.code === "NetStream.Play.UnpublishNotify") this.heard("unpublished");
    else if (data.code === "NetConnection.Connect.Closed") this.end(new Error("the node has ended the session"));
    else if (data.code) this.#came(data.code, data.message);
  }

  #came(name, value) {
    (this.#waits.get(name) ?? this.#wait(name)).done(value);
  }

  /** From here on the websocket is not needed, so the manager has nothing to carry. */
  #switch() {
    if (this.#switched || this.#channel?.readyState !== "open") return;
    this.say({ switchChannel: CHANNEL });
    this.#switched = true;
    this.#socket.close();
  }

  end(reason) {
    if (this.#over) return;
    this.#over = reason;
    for (const wait of this.#waits.values()) wait.fail(reason);
    this.#socket?.close();
    this.ended(reason);
  }
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

/** The encodings of a picture: one, or three whose sizes and rates halve and more. */
function encodings({ bitrate = 3_000_000, simulcast = false }) {
  const layer = (rid, scaleResolutionDownBy, share) => ({ rid, scaleResolutionDownBy, maxBitrate: Math.round(bitrate * share) });
  return simulcast ? [layer("l", 4, 0.08), layer("m", 2, 0.3), layer("h", 1, 1)] : [{ maxBitrate: bitrate }];
}

/** Whether the node said goodbye: it closed DTLS, which the state of the connection as a whole does not tell of. */
function dismissed(pc) {
  return pc.getTransceivers().some((t) => (t.receiver.transport ?? t.sender.transport)?.state === "closed");
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
        // Of the layers of a simulcast the largest that is sent.
        if (s.frameWidth && s.framesPerSecond !== 0) n.layers = (n.layers ?? 0) + 1;
        if (s.frameWidth > (n.width ?? 0)) [n.width, n.height] = [s.frameWidth, s.frameHeight];
        const keys = this.delta(`keys ${s.id}`, s.keyFramesDecoded ?? 0);
        const shown = this.delta(`shown ${s.id}`, s.framesDecoded ?? 0);
        // Nothing but key frames for a while: the node has found the link too thin for more.
        if (shown > keys || keys > 3) this.whole = now;
        if (shown > 0) this.latest = now;
        n.thin = now - (this.whole ?? now) > 3000 && now - (this.latest ?? 0) < 8000;
        if (s.framesPerSecond !== undefined) n.fps = Math.max(n.fps ?? 0, s.framesPerSecond);
        n.frames = Math.max(n.frames, s.framesDecoded ?? s.framesEncoded ?? 0);
        const out = this.delta("emitted", s.jitterBufferEmittedCount ?? 0);
        const held = this.delta("held", s.jitterBufferDelay ?? 0);
        if (out > 0) n.buffer_ms = (1000 * held) / out;
        n.freezes = s.freezeCount;
        n.nacks = s.nackCount;
      } else if (s.type === "remote-inbound-rtp") {
        lost += this.delta(`lost ${s.id}`, s.packetsLost ?? 0);
      } else if (s.type === "transport" && s.selectedCandidatePairId) {
        const pair = report.get(s.selectedCandidatePairId);
        n.over = report.get(pair?.localCandidateId)?.protocol;
        const rtt = pair?.currentRoundTripTime;
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
  #talk = null;
  #lost = null;
  #pause = 1000;
  #wake = () => {};

  constructor(key, media, options) {
    super();
    this.key = String(key).replace(/^\/+|\/+$/g, "");
    this.publishes = media !== null;
    this.options = options;
    this.via = options.via === "ws" ? "ws" : "whip";
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
    this.#leave = () => this.#part();
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
    this.#part();
    this.pc?.close();
    this.#wake();
    this.#tell(state, text);
  }

  /** Tells the node that this is over, so that it need not find out. */
  #part() {
    end(this.#resource);
    this.#resource = null;
    const talk = this.#talk;
    this.#talk = null;
    if (this.publishes && this.via === "ws") talk?.say({ unpublish: this.name });
    talk?.end(new Error("stopped"));
  }

  get name() {
    return this.key.slice(this.key.lastIndexOf("/") + 1);
  }

  /** Sends data to all viewers of what is published. Answers whether it could be sent. */
  send(method, data) {
    return this.publishes && (this.#talk?.say({ send: { method, data } }) ?? false);
  }

  /** Tells all viewers that the publisher's sound or picture is off, or on again; the tracks are the page's own. */
  mute({ muteAudio = false, muteVideo = false } = {}) {
    return this.publishes && (this.#talk?.say({ mute: { muteAudio, muteVideo } }) ?? false);
  }

  #say(type, detail) {
    this.dispatchEvent(detail === undefined ? new Event(type) : new CustomEvent(type, { detail }));
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
      const kind = this.via === "ws" ? "ws" : this.publishes ? "whip" : "whep";
      const addresses = await endpoints(this.key, this.publishes, kind, this.options);
      if (this.via === "ws") await this.#converse(run, pc, addresses);
      else await this.#negotiate(run, pc, addresses);
      await this.#watch(run, pc);
    } finally {
      this.#part();
      pc.close();
      this.node = null;
      this.numbers = null;
    }
  }

  #send(pc) {
    for (const track of this.stream.getTracks()) {
      const options = { direction: "sendonly", streams: [this.stream] };
      if (track.kind === "video") options.sendEncodings = encodings(this.options);
      const transceiver = pc.addTransceiver(track, options);
      if (track.kind === "video" && !preferH264(transceiver)) {
        this.#note(["This browser cannot encode H.264, so the node may refuse the picture."]);
      }
    }
  }

  #receive(pc) {
    const stream = new MediaStream();
    this.stream = stream;
    if (this.via !== "ws") {
      pc.addTransceiver("video", { direction: "recvonly" });
      pc.addTransceiver("audio", { direction: "recvonly" });
    }
    pc.addEventListener("track", (event) => {
      stream.addTrack(event.track);
      // Live: rather a skipped frame than a growing delay.
      if ("jitterBufferTarget" in event.receiver) event.receiver.jitterBufferTarget = this.options.delay ?? 0;
      this.#say("track");
    });
  }

  /** A conversation about this session; the first to be over tells why the session is. */
  #converses(url) {
    const talk = new Conversation(
      url,
      (what, value) => {
        if (this.#talk !== talk) return;
        if (what === "candidate") this.pc.addIceCandidate(value).catch(() => {});
        else if (what === "data") this.#say("data", value);
        else if (what === "unpublished") talk.end(new Refused(404, "The publisher has stopped"));
      },
      (reason) => {
        if (this.#talk !== talk) return;
        this.#lost = reason;
        this.#wake();
      },
    );
    this.#talk = talk;
    this.#lost = null;
    return talk;
  }

  /** Publishes or plays over the websocket of the stream-manager dialect. */
  async #converse(run, pc, addresses) {
    const id = this.publishes ? this.name : `subscriber-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
    let unreachable = null;
    for (const address of addresses) {
      const url = withQuery(address, { id, ...this.options.query });
      const talk = this.#converses(url);
      try {
        await talk.wait("NetConnection.Connect.Success", 5000);
      } catch (error) {
        talk.end(error);
        // Refused in words is refused; a host that cannot be reached is not the last.
        if (error instanceof Refused) throw error;
        unreachable = error;
        continue;
      }
      this.node = new URL(address).searchParams.get("host") ?? url.host;
      const data = this.options.data ?? true;
      // Candidates follow when the node knows what they are about.
      const found = [];
      let tell = (candidate) => found.push(candidate);
      pc.addEventListener("icecandidate", ({ candidate }) => {
        if (candidate?.candidate) tell(candidate.toJSON());
        else if (candidate === null) tell({ type: "candidate", candidate: "" });
      });
      const trickle = () => {
        tell = (candidate) => talk.say({ handleCandidate: this.name, data: { candidate } });
        found.forEach((candidate) => tell(candidate));
      };
      if (this.publishes) {
        if (data) talk.use(pc.createDataChannel(CHANNEL));
        await pc.setLocalDescription();
        const sdp = { type: "offer", sdp: pc.localDescription.sdp };
        talk.say({ handleOffer: this.name, transport: "udp", data: { sdp } });
        trickle();
        await pc.setRemoteDescription({ type: "answer", sdp: await talk.wait("answer") });
      } else {
        talk.say({ requestOffer: this.name, requestId: id, transport: "udp", datachannel: data, doNotSwitch: false });
        const offer = await talk.wait("offer");
        await pc.setRemoteDescription({ type: "offer", sdp: offer });
        if (/^m=application /m.test(offer)) talk.use(pc.createDataChannel(CHANNEL));
        await pc.setLocalDescription();
        const sdp = { type: "answer", sdp: pc.localDescription.sdp };
        talk.say({ handleAnswer: this.name, requestId: id, data: { sdp } });
        trickle();
      }
      await talk.wait("NetConnection.ICE.TrickleCompleted");
      if (this.publishes) talk.say({ publish: this.name, mode: "live" });
      else talk.say({ subscribe: this.name, requestId: id });
      await talk.wait(this.publishes ? "NetStream.Publish.Start" : "NetStream.Play.Start");
      if (this.#run !== run) throw new Error("stopped meanwhile");
      return this.#shows();
    }
    throw unreachable;
  }

  /** The node has taken the session; now media must come or go. */
  #shows() {
    const video = this.options.video;
    if (video && !this.publishes) {
      video.srcObject = this.stream;
      video.play().catch(() => {});
    }
    this.#tell("connecting", this.publishes ? "Connecting…" : "Connected to the node, waiting for the picture…");
  }

  /** Nodes are ICE-lite and learn our address from our checks, so nothing is gathered first. */
  async #negotiate(run, pc, addresses) {
    if (this.options.data) this.#converses(null).use(pc.createDataChannel(CHANNEL));
    await pc.setLocalDescription();
    let unreachable = null;
    for (const address of addresses) {
      const url = withQuery(address, this.options.query ?? {});
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
      this.node = url.searchParams.get("host") ?? url.host;
      this.sound = response.headers.get("Headwater-Sound");
      this.#note(notices(response));
      return this.#shows();
    }
    throw unreachable;
  }

  /** Looks at the connection each second; throws when it is no good any more. */
  async #watch(run, pc) {
    const numbers = new Numbers(pc, this.publishes ? "outbound-rtp" : "inbound-rtp");
    let silent = 0;
    let broken = 0;
    let stood = false;
    while (this.#run === run) {
      if (!this.#lost) await this.#rest(1000);
      if (this.#run !== run) return;
      // What the node says of a session that stood is no refusal of the next.
      if (this.#lost) throw this.#lost.status === 404 ? this.#lost : new Error(this.#lost.message);
      if (["failed", "closed"].includes(pc.connectionState)) throw new Error("the connection was lost");
      if (dismissed(pc)) throw new Error("the node has ended the session");
      broken = pc.connectionState === "connected" ? 0 : broken + 1;
      stood ||= broken === 0;
      // The browser itself waits for 5 s before it says that nothing comes back.
      if (stood && broken > 3) throw new Error("the connection to the node was lost");
      if (broken > 10) throw new Error("no media path to the node; are its UDP and TCP ports for WebRTC open?");
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
