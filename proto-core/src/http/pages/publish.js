import { publish } from "/client.js";
import { copy, el, keyFromPath, shown, showNotices, showNumbers } from "./headwater.js";

const key = keyFromPath("/publish/");
const video = el("video");
const query = new URLSearchParams(location.search);
const canCapture = window.isSecureContext && !!navigator.mediaDevices?.getUserMedia;
let live = null;
// ?simulcast=1: each viewer gets the size that fits its link.
el("simulcast").checked = query.get("simulcast") === "1";

document.title = `Publish ${key} · Headwater`;
el("title").textContent = key;
el("watch").textContent = el("watch").href = `${location.origin}/watch/${key}`;

function tell(state, text) {
  el("state").dataset.state = state;
  el("state").textContent = text;
}

/** A moving picture with a soft tone, made here: needs no camera and no HTTPS. */
function testPicture() {
  const canvas = document.createElement("canvas");
  canvas.width = 1280;
  canvas.height = 720;
  const g = canvas.getContext("2d");
  const colours = ["#f8fafc", "#facc15", "#22d3ee", "#4ade80", "#e879f9", "#f87171", "#60a5fa"];
  let frame = 0;
  const draw = () => {
    colours.forEach((c, i) => {
      g.fillStyle = c;
      g.fillRect((i * 1280) / 7, 0, 1280 / 7 + 1, 720);
    });
    g.fillStyle = "#0f172a";
    g.fillRect(0, 430, 1280, 290);
    g.fillStyle = "#fff";
    g.beginPath();
    g.arc(640 + 520 * Math.sin(frame / 40), 500, 36, 0, 7);
    g.fill();
    g.font = "600 56px system-ui, sans-serif";
    g.textAlign = "center";
    g.fillText(`${key}  ·  ${new Date().toISOString().slice(11, 23)}`, 640, 640);
    frame += 1;
  };
  draw();
  const timer = setInterval(draw, 1000 / 30);
  const media = canvas.captureStream(30);
  const audio = new AudioContext();
  // Without a press on the page (?start) a browser may keep the tone back until there is one.
  addEventListener("pointerdown", () => audio.state === "suspended" && audio.resume(), { once: true });
  const tone = audio.createOscillator();
  const gain = audio.createGain();
  gain.gain.value = 0.05;
  tone.frequency.value = 440;
  const out = audio.createMediaStreamDestination();
  tone.connect(gain).connect(out);
  tone.start();
  media.addTrack(out.stream.getAudioTracks()[0]);
  media.release = () => {
    clearInterval(timer);
    audio.close();
  };
  return media;
}

async function capture(source) {
  if (source === "test") return testPicture();
  if (!canCapture) throw new Error("camera and screen need HTTPS or localhost; choose the test picture or see above");
  if (source === "screen") {
    return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: true });
  }
  const picture = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  try {
    return await navigator.mediaDevices.getUserMedia({ video: picture, audio: true });
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
    // Not every machine has both a camera and a microphone.
    return navigator.mediaDevices.getUserMedia({ video: picture }).catch(() =>
      navigator.mediaDevices.getUserMedia({ audio: true }),
    );
  }
}

function captureWords(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser was not allowed to use it. Allow camera and microphone for this page (the symbol beside the address) and try again.";
    case "NotFoundError":
      return "No camera or microphone was found. Connect one, or choose the screen or the test picture.";
    case "NotReadableError":
      return "The camera or microphone is in use by another program.";
    default:
      return error.message;
  }
}

async function start() {
  el("go").disabled = true;
  showNotices(el("notices"), []);
  let media;
  try {
    tell("connecting", "Waiting for the picture…");
    media = await capture(el("source").value);
  } catch (error) {
    tell("error", "No picture");
    showNotices(el("notices"), [captureWords(error)], "bad");
    el("go").disabled = false;
    return;
  }
  const simulcast = el("simulcast").checked;
  const session = publish(key, media, { via: query.get("via"), query: shown(), simulcast });
  const run = { media, session };
  live = run;
  session.addEventListener("state", () => {
    if (live !== run) return;
    const { state, status, text } = session;
    if (state === "refused") {
      stop();
      showNotices(el("notices"), [text], "bad");
      tell("error", "Refused");
      return;
    }
    const trying = status === 409 ? "The name is taken – trying again…" : "Trying again…";
    tell(state, state === "connecting" && text !== "Connecting…" ? trying : text);
    if (state === "connecting" && text !== "Connecting…") showNotices(el("notices"), [text], "bad");
  });
  session.addEventListener("notices", () => showNotices(el("notices"), session.notices));
  session.addEventListener("stats", () => live === run && showNumbers(el("stats"), session));
  video.srcObject = media;
  el("cover").hidden = true;
  el("screen").classList.toggle("mirror", el("source").value === "camera");
  el("source").disabled = el("simulcast").disabled = true;
  el("go").disabled = false;
  el("go").textContent = "Stop";
  el("go").classList.add("stop");
  // The browser's own "stop sharing", or an unplugged camera.
  media.getVideoTracks()[0]?.addEventListener("ended", () => live === run && stop());
}

function stop() {
  const run = live;
  live = null;
  if (!run) return;
  run.session.stop();
  for (const track of run.media.getTracks()) track.stop();
  run.media.release?.();
  video.srcObject = null;
  el("cover").hidden = false;
  el("stats").hidden = true;
  el("source").disabled = el("simulcast").disabled = false;
  el("go").textContent = "Go live";
  el("go").classList.remove("stop");
  tell("idle", "Not live");
}

if (!canCapture) {
  el("insecure").hidden = false;
  el("local").textContent = `http://localhost:${location.port || 80}${location.pathname}`;
  el("tunnel").textContent = `ssh -L ${location.port || 80}:localhost:${location.port || 80} ${location.hostname}`;
  el("source").value = "test";
}
if (["camera", "screen", "test"].includes(query.get("source"))) el("source").value = query.get("source");
el("go").addEventListener("click", () => (live ? stop() : start()));
el("copy").addEventListener("click", () => copy(el("watch").href, el("copy"), el("watch")));
// For scripts and tests: ?start goes live without a press; ?via=ws signals over a websocket (see /client.js).
if (!window.RTCPeerConnection) {
  tell("error", "This browser has no WebRTC, so it cannot publish here.");
  el("go").disabled = true;
} else if (query.has("start")) start();
