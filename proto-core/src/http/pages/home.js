import { copy, el } from "./headwater.js";

/** The nodes and the live streams, as last heard. */
let nodes = [];
let keys = new Map();
let typed = false;

const NAME = /^[A-Za-z0-9._~-]{1,128}(\/[A-Za-z0-9._~-]{1,128}){1,7}$/;

function node(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function duration(s) {
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

const SOURCES = { rtmp: "by RTMP", whip: "by WebRTC", relay: "from another node" };

function card(stream) {
  const box = node("article", "card");
  const title = node("h3");
  title.append(node("span", "", stream.key), node("span", `tag ${stream.state}`, stream.state));
  const tracks = stream.tracks.map((t) => (t.width ? `${t.codec} ${t.width}×${t.height}` : t.codec));
  // Zero is what a node says that does not know.
  const kbps = stream.bitrate_kbps;
  const rate = kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : kbps > 0 && `${kbps} kbit/s`;
  const facts = [...tracks, rate].filter(Boolean).join(" · ");
  const viewers = `${stream.viewers} ${stream.viewers === 1 ? "viewer" : "viewers"}`;
  const source = SOURCES[stream.source] ?? stream.source;
  const away = stream.state === "held" && "the publisher is away";
  const more = [viewers, away, stream.uptime_s > 0 && duration(stream.uptime_s), source, stream.origin && `on ${stream.origin}`];
  box.append(title);
  if (facts) box.append(node("p", "small-text", facts));
  box.append(node("p", "small-text", more.filter(Boolean).join(" · ")));
  for (const notice of stream.notices || []) box.append(node("p", "hint", `⚠ ${notice}`));
  const link = node("a", "button small primary", "Watch");
  link.href = `/watch/${stream.key}`;
  box.append(link);
  return box;
}

function row(n, self) {
  const tr = node("tr");
  const name = node("td");
  name.append(node("strong", "", n.id));
  if (n.id === self) name.append(node("span", "quiet", " (this one)"));
  const state = node("td");
  state.append(node("span", `tag ${n.state}`, n.state.replace("_", " ")));
  const load = node("td");
  const meter = node("meter");
  meter.value = n.load;
  meter.title = `${Math.round(n.load * 100)} %`;
  load.append(meter, ` ${Math.round(n.load * 100)} %`);
  tr.append(name, node("td", "", n.roles.join(", ")), node("td", "", n.region || "–"), node("td", "", n.address));
  tr.append(state, load, node("td", "num", n.sessions), node("td", "num", n.streams), node("td", "quiet", n.version));
  return tr;
}

async function get(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

/** Replaces what is shown only if it differs, so that a selection or a focus survives. */
function show(place, elements) {
  const fresh = elements.map((e) => e.outerHTML).join("");
  if (place.dataset.shown === fresh) return;
  place.dataset.shown = fresh;
  place.replaceChildren(...elements);
}

async function refresh() {
  try {
    const [streams, known] = await Promise.all([get("/api/v1/streams"), get("/api/v1/nodes")]);
    nodes = known.nodes;
    keys = new Map(streams.streams.map((s) => [s.key, s.state]));
    suggest();
    describe();
    show(el("streams"), streams.streams.map(card));
    el("none").hidden = streams.streams.length > 0;
    el("count").hidden = streams.streams.length === 0;
    el("count").textContent = streams.streams.length;
    show(el("nodes"), nodes.map((n) => row(n, known.this)));
    el("partial").hidden = known.whole;
    const self = nodes.find((n) => n.id === known.this);
    el("where").textContent = self ? `${self.id} · ${self.roles.join(", ")}` : known.this;
    el("trouble").hidden = true;
  } catch (error) {
    el("trouble").hidden = false;
    el("trouble").textContent = `This node does not answer right now (${error.message}); trying again.`;
  }
  setTimeout(refresh, document.hidden ? 10000 : 2000);
}

/** The node that an encoder should be pointed at: an origin that takes publishers, else any node with RTMP. */
function target() {
  const open = nodes.filter((n) => n.rtmp_port && n.state === "in_service");
  const here = open.filter((n) => n.http_port === Number(location.port || 80) && n.address === location.hostname);
  const origins = open.filter((n) => n.roles.includes("origin"));
  return here.find((n) => n.roles.includes("origin")) ?? origins.sort((a, b) => a.load - b.load)[0] ?? open[0];
}

/** Nodes that only this host reaches tell their loopback address; the address of this page then says more. */
function hostOf(n) {
  const loopback = /^(127\.|\[::1\]$|localhost$)/;
  return loopback.test(n.address) && !loopback.test(location.hostname) ? location.hostname : n.address;
}

/** A name that is free, until the user types one. */
function suggest() {
  const names = ["live/mine", ...Array.from({ length: 98 }, (_, i) => `live/mine${i + 2}`)];
  if (!typed && keys.has(el("name").value)) el("name").value = names.find((n) => !keys.has(n)) ?? names[0];
}

function describe() {
  const key = el("name").value.trim().replace(/^\/+|\/+$/g, "");
  const good = NAME.test(key);
  el("badname").hidden = good;
  el("live").hidden = keys.get(key) !== "live";
  const to = target();
  el("rtmp").hidden = !good || !to;
  el("nortmp").hidden = !good || !!to || nodes.length === 0;
  if (!good) {
    el("browser").removeAttribute("href");
    return;
  }
  el("browser").href = `/publish/${key}`;
  if (!to) return;
  const cut = key.lastIndexOf("/");
  const port = to.rtmp_port === 1935 ? "" : `:${to.rtmp_port}`;
  const server = `rtmp://${hostOf(to)}${port}/${key.slice(0, cut)}`;
  const name = key.slice(cut + 1);
  const line = (audio) =>
    `ffmpeg -re -i video.mp4 -c:v libx264 -preset veryfast -tune zerolatency -bf 0 -g 60 ${audio} -f flv ${server}/${name}`;
  write("ffmpeg", line("-c:a libopus"));
  write("ffmpeg-aac", line("-c:a aac"));
  write("obs-server", server);
  write("obs-key", name);
}

/** Writes only what differs, so that a selection survives. */
function write(id, text) {
  if (el(id).textContent !== text) el(id).textContent = text;
}

el("name").addEventListener("input", () => {
  typed = true;
  describe();
});
el("name").addEventListener("keydown", (event) => {
  if (event.key === "Enter") el("browser").click();
});
el("copy").addEventListener("click", () => copy(el("ffmpeg").textContent, el("copy"), el("ffmpeg")));
el("copy-aac").addEventListener("click", () => copy(el("ffmpeg-aac").textContent, el("copy-aac"), el("ffmpeg-aac")));
describe();
refresh();
