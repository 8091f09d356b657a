import { copy, el } from "./headwater.js";

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

function card(stream) {
  const box = node("article", "card");
  const title = node("h3");
  title.append(node("span", "", stream.key), node("span", `tag ${stream.state}`, stream.state));
  const tracks = stream.tracks.map((t) => (t.width ? `${t.codec} ${t.width}×${t.height}` : t.codec));
  const rate = stream.bitrate_kbps >= 1000 ? `${(stream.bitrate_kbps / 1000).toFixed(1)} Mbit/s` : `${stream.bitrate_kbps} kbit/s`;
  const facts = [...tracks, rate].join(" · ");
  const viewers = `${stream.viewers} ${stream.viewers === 1 ? "viewer" : "viewers"}`;
  const more = [viewers, duration(stream.uptime_s), stream.source, stream.origin && `on ${stream.origin}`];
  box.append(title, node("p", "small-text", facts), node("p", "small-text", more.filter(Boolean).join(" · ")));
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
    const [streams, nodes] = await Promise.all([get("/api/v1/streams"), get("/api/v1/nodes")]);
    show(el("streams"), streams.streams.map(card));
    el("none").hidden = streams.streams.length > 0;
    el("count").hidden = streams.streams.length === 0;
    el("count").textContent = streams.streams.length;
    show(el("nodes"), nodes.nodes.map((n) => row(n, nodes.this)));
    el("partial").hidden = nodes.whole;
    const self = nodes.nodes.find((n) => n.id === nodes.this);
    el("where").textContent = self ? `${self.id} · ${self.roles.join(", ")}` : nodes.this;
    el("trouble").hidden = true;
  } catch (error) {
    el("trouble").hidden = false;
    el("trouble").textContent = `This node does not answer right now (${error.message}); trying again.`;
  }
  setTimeout(refresh, document.hidden ? 10000 : 2000);
}

function describe() {
  const key = el("name").value.trim().replace(/^\/+|\/+$/g, "");
  const good = NAME.test(key);
  el("badname").hidden = good;
  if (!good) {
    el("browser").removeAttribute("href");
    return;
  }
  el("browser").href = `/publish/${key}`;
  const cut = key.lastIndexOf("/");
  const server = `rtmp://${location.hostname}/${key.slice(0, cut)}`;
  el("ffmpeg").textContent =
    `ffmpeg -re -i video.mp4 -c:v libx264 -preset veryfast -tune zerolatency -bf 0 -g 60 -c:a aac -f flv ${server}/${key.slice(cut + 1)}`;
  el("obs-server").textContent = server;
  el("obs-key").textContent = key.slice(cut + 1);
}

el("name").addEventListener("input", describe);
el("name").addEventListener("keydown", (event) => {
  if (event.key === "Enter") el("browser").click();
});
el("copy").addEventListener("click", () => copy(el("ffmpeg").textContent, el("copy"), el("ffmpeg")));
describe();
refresh();
