import { subscribe } from "/client.js";
import { el, keyFromPath, shown, showNotices, showNumbers } from "./headwater.js";

const key = keyFromPath("/watch/");
const video = el("video");

document.title = `${key} · Headwater`;
el("title").textContent = key;

// ?via=ws signals over a websocket; see /client.js.
const via = new URLSearchParams(location.search).get("via");
const session = subscribe(key, { video, via, query: shown() });

/** What the viewer is told; the cover lies over the picture until it is live. */
function tell() {
  const { state, text } = session;
  const pictures = (session.numbers?.bytes.video ?? 0) > 0;
  el("state").dataset.state = state === "refused" ? "error" : state;
  // What is long to read stands in the cover alone.
  el("state").textContent = state === "refused" ? "Not playing" : text;
  el("cover").hidden = state === "live" && pictures;
  el("covertext").textContent = state === "live" ? "Sound only" : text;
  el("spinner").hidden = state === "refused" || state === "live";
  el("cover").classList.toggle("thin", video.readyState >= 2);
  if (state === "refused") el("stats").hidden = true;
}

session.addEventListener("state", tell);
const THIN =
  "Your connection is too thin for the pictures of this stream: you get the sound and a still picture now and then. It goes on by itself when there is more room.";
let thin = false;
const notices = () => showNotices(el("notices"), thin ? [THIN, ...session.notices] : session.notices);
session.addEventListener("notices", notices);
session.addEventListener("stats", () => {
  if (thin !== (session.numbers.thin ?? false)) {
    thin = !thin;
    notices();
  }
  showNumbers(el("stats"), session);
  const sound = session.numbers.bytes.audio > 0;
  el("sound").hidden = !sound || !video.muted;
  el("mute").hidden = !sound || video.muted;
  tell();
});
tell();

function sound(on) {
  video.muted = !on;
  video.play().catch(() => {});
  el("sound").hidden = on;
  el("mute").hidden = !on;
}

el("sound").addEventListener("click", () => sound(true));
el("mute").addEventListener("click", () => sound(false));
el("full").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (el("screen").requestFullscreen) el("screen").requestFullscreen();
  // Phones of one maker let only the video itself fill the screen.
  else video.webkitEnterFullscreen?.();
});
video.addEventListener("resize", () => {
  if (video.videoWidth) el("screen").style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
});
