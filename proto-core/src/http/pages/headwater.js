// What the pages share: small helpers, numbers as labels and texts. Publishing and watching is in /client.js.

export const el = (id) => document.getElementById(id);

/** The stream's key out of this page's own address: /watch/{app}/{stream} */
export function keyFromPath(prefix) {
  return decodeURIComponent(location.pathname.slice(prefix.length)).replace(/^\/+|\/+$/g, "");
}

/** What this page's own address shows for nodes that ask: ?token=… */
export function shown() {
  const token = new URLSearchParams(location.search).get("token");
  return token ? { token } : {};
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Names of codecs as the other pages write them; browsers tell what stands in the session description. */
const CODECS = { H264: "H.264", H265: "H.265", opus: "Opus", PCMU: "G.711 µ-law", PCMA: "G.711 A-law" };
const codec = (name) => CODECS[name] ?? name;

/** A session's numbers as labels and texts, always in the same order. */
function rows({ numbers: n, node, sound, via, publishes }) {
  const rate = n.kbps >= 1000 ? `${(n.kbps / 1000).toFixed(2)} Mbit/s` : `${Math.round(n.kbps ?? 0)} kbit/s`;
  const ms = (x) => x !== undefined && `${Math.round(x)} ms`;
  return [
    ["Picture", n.width && `${n.width}×${n.height}${n.layers > 1 ? ` and ${n.layers - 1} smaller` : ""}`],
    ["Frames", n.fps !== undefined && `${Math.round(n.fps)} / s`],
    ["Bit rate", n.kbps !== undefined && rate],
    ["Video", codec(n.video)],
    ["Audio", n.audio && (sound || codec(n.audio))],
    ["Delay from node", ms(n.delay_ms)],
    ["Round trip", ms(n.rtt_ms)],
    ["Loss", n.loss !== undefined && `${(100 * n.loss).toFixed(1)} %`],
    ["Asked again", n.nacks !== undefined && `${n.nacks} packets`],
    ["Freezes", n.freezes],
    ["Node", node],
    ["Signalling", via === "ws" ? "websocket" : publishes ? "WHIP" : "WHEP"],
    ["Media over", n.over?.toUpperCase()],
  ].filter(([, text]) => text !== undefined && text !== false && text !== null && text !== "");
}

/** Shows the numbers of a session in a definition list. */
export function showNumbers(list, session) {
  if (!session.numbers) return;
  list.hidden = false;
  list.replaceChildren(
    ...rows(session).map(([name, text]) => {
      const box = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = name;
      // A narrow box breaks an address before its port, not within it.
      dd.append(...String(text).split(/(?=:\d+$)/).flatMap((part, n) => n ? [document.createElement("wbr"), part] : part));
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
