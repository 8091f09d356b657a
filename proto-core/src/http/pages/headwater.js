// What the pages share: asking the manager, WHIP and WHEP, numbers from a connection, words.

export const el = (id) => document.getElementById(id);

/** The stream's key out of this page's own address: /watch/{app}/{stream} */
export function keyFromPath(prefix) {
  return decodeURIComponent(location.pathname.slice(prefix.length)).replace(/^\/+|\/+$/g, "");
}

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

/**
 * Where to publish (action=broadcast) or watch (action=subscribe): addresses to try in turn. The manager's choice comes
 * first; this page's own host is the last resort, for instance when it is no manager.
 */
export async function endpoints(key, action, kind) {
  const own = `${location.origin}/${kind}/${key}`;
  try {
    const response = await fetch(`/streammanager/api/4.0/event/${key}?action=${action}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(4000),
    });
    const answer = response.ok ? await response.json() : null;
    const url = answer?.urls?.[kind];
    // A page from https:// may not call http://, so there only this host itself is left.
    const blocked = location.protocol === "https:" && !url?.startsWith("https:");
    return url && !blocked && url !== own ? [url, own] : [own];
  } catch {
    return [own];
  }
}

/**
 * Posts the offer of `pc` to the first address that can be reached and sets the answer. Gives the session's address
 * and the server's notices. The server is ICE-lite and learns our address from our checks, so nothing is gathered first.
 */
export async function negotiate(pc, addresses) {
  await pc.setLocalDescription();
  let unreachable = null;
  for (const address of addresses) {
    let response;
    try {
      response = await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/sdp" },
        body: pc.localDescription.sdp,
        signal: AbortSignal.timeout(10000),
      });
    } catch (error) {
      unreachable = new Error(`${new URL(address).host} cannot be reached (${error.message})`);
      continue;
    }
    if (response.status !== 201) throw new Refused(response.status, await wordsOf(response));
    const place = response.headers.get("Location");
    const session = place ? new URL(place, address).href : null;
    const answer = await response.text();
    if (pc.signalingState === "closed") {
      end(session);
      throw new Error("closed meanwhile");
    }
    try {
      await pc.setRemoteDescription({ type: "answer", sdp: answer });
    } catch (error) {
      end(session);
      throw error;
    }
    const notices = (response.headers.get("Headwater-Notice") || "")
      .split(" | ")
      .filter(Boolean)
      .map((text) => {
        try {
          return decodeURIComponent(text);
        } catch {
          return text;
        }
      });
    const sound = response.headers.get("Headwater-Sound");
    return { session, notices, sound, host: new URL(address).host };
  }
  throw unreachable;
}

/** Ends a session, even while the page goes away. */
export function end(session) {
  if (session) fetch(session, { method: "DELETE", keepalive: true }).catch(() => {});
}

/** Waits longer each time: 1 s, 1.5 s, … up to 8 s. */
export class Backoff {
  constructor() {
    this.reset();
  }
  reset() {
    this.ms = 1000;
  }
  async pause() {
    const ms = this.ms * (0.8 + 0.4 * Math.random());
    this.ms = Math.min(this.ms * 1.5, 8000);
    await wait(ms);
  }
}

/** Numbers of a connection, as labels and texts; call once a second. `kind` is "inbound-rtp" or "outbound-rtp". */
export class Stats {
  constructor(pc, kind) {
    this.pc = pc;
    this.kind = kind;
    this.before = new Map();
    this.bytes = { video: 0, audio: 0 };
  }

  delta(name, value) {
    const before = this.before.get(name) ?? 0;
    this.before.set(name, value);
    return Math.max(0, value - before);
  }

  async read() {
    const report = await this.pc.getStats();
    const rows = {};
    const now = performance.now();
    const seconds = this.at ? (now - this.at) / 1000 : 0;
    this.at = now;
    let bytes = 0;
    let lost = 0;
    let packets = 0;
    this.flow = { video: 0, audio: 0 };
    for (const s of report.values()) {
      if (s.type === this.kind) {
        const total = s.bytesReceived ?? s.bytesSent ?? 0;
        const fresh = this.delta(`bytes ${s.id}`, total);
        bytes += fresh;
        this.flow[s.kind] += fresh;
        this.bytes[s.kind] = total;
        lost += this.delta(`lost ${s.id}`, s.packetsLost ?? 0);
        packets += this.delta(`packets ${s.id}`, s.packetsReceived ?? s.packetsSent ?? 0);
        if (s.kind === "video") {
          if (s.frameWidth) rows["Picture"] = `${s.frameWidth}×${s.frameHeight}`;
          if (s.framesPerSecond !== undefined) rows["Frames"] = `${Math.round(s.framesPerSecond)} / s`;
          this.frames = s.framesDecoded ?? s.framesEncoded ?? 0;
        }
        const codec = report.get(s.codecId)?.mimeType?.split("/")[1];
        if (codec && total > 0) rows[s.kind === "video" ? "Video" : "Audio"] = codec;
      } else if (s.type === "remote-inbound-rtp") {
        lost += this.delta(`lost ${s.id}`, s.packetsLost ?? 0);
      } else if (s.type === "transport" && s.selectedCandidatePairId) {
        const rtt = report.get(s.selectedCandidatePairId)?.currentRoundTripTime;
        if (rtt !== undefined) rows["Round trip"] = `${Math.round(rtt * 1000)} ms`;
      }
    }
    if (seconds > 0) {
      const kbps = (bytes * 8) / 1000 / seconds;
      rows["Bit rate"] = kbps >= 1000 ? `${(kbps / 1000).toFixed(2)} Mbit/s` : `${Math.round(kbps)} kbit/s`;
      rows["Loss"] = `${((100 * lost) / Math.max(1, lost + packets)).toFixed(1)} %`;
    }
    return rows;
  }
}

const ORDER = ["Picture", "Frames", "Bit rate", "Video", "Audio", "Round trip", "Loss", "Node"];

/** Shows rows of numbers in a definition list, always in the same order. */
export function showStats(list, rows) {
  list.hidden = false;
  list.replaceChildren(
    ...ORDER.filter((name) => rows[name] !== undefined).map((name) => {
      const box = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = rows[name];
      box.append(dt, dd);
      return box;
    }),
  );
}

/** Shows sentences as notes; `kind` is "", "warn" or "bad". */
export function showNotices(place, texts, kind = "warn") {
  place.replaceChildren(
    ...texts.map((text) => {
      const p = document.createElement("p");
      p.className = `note ${kind}`;
      p.textContent = text;
      return p;
    }),
  );
}

/** Copies a text; where the page may not (plain HTTP), selects it for the user. */
export async function copy(text, button, source) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
  await wait(1500);
  button.textContent = label;
}
