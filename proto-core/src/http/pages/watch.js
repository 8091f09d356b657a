import { Backoff, Refused, Stats, el, end, endpoints, keyFromPath, negotiate, showNotices, showStats, wait } from "./headwater.js";

const key = keyFromPath("/watch/");
const video = el("video");
const backoff = new Backoff();
let current = null;

document.title = `${key} · Headwater`;
el("title").textContent = key;

/** What the viewer is told; `cover` lies over the picture, null shows the picture. */
function tell(state, text, cover = text) {
  el("state").dataset.state = state;
  el("state").textContent = text;
  el("cover").hidden = cover === null;
  el("covertext").textContent = cover ?? "";
  el("spinner").hidden = state === "error";
  el("cover").classList.toggle("thin", video.readyState >= 2);
}

/** Plays until the session is over; throws why. */
async function play() {
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const session = { pc, url: null };
  current = session;
  try {
    const media = new MediaStream();
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    pc.addEventListener("track", (event) => {
      media.addTrack(event.track);
      // Live: rather a skipped frame than a growing delay.
      if ("jitterBufferTarget" in event.receiver) event.receiver.jitterBufferTarget = 0;
    });
    const answer = await negotiate(pc, await endpoints(key, "subscribe", "whep"));
    session.url = answer.session;
    video.srcObject = media;
    video.play().catch(() => {});
    showNotices(el("notices"), answer.notices);
    tell("connecting", "Connected to the node, waiting for the picture…");
    await watchOver(pc, answer);
  } finally {
    pc.close();
    end(session.url);
    el("stats").hidden = true;
    el("sound").hidden = true;
  }
}

/** Looks at the connection each second; throws when it is no good any more. */
async function watchOver(pc, answer) {
  const stats = new Stats(pc, "inbound-rtp");
  let silent = 0;
  let broken = 0;
  for (;;) {
    await wait(1000);
    if (pc.connectionState === "failed" || pc.connectionState === "closed") throw new Error("the connection was lost");
    broken = pc.connectionState === "connected" ? 0 : broken + 1;
    if (broken > 10) throw new Error("no media path to the node; is its UDP port open?");
    // The node ends the session when nobody came back in time; then it answers no more checks of the path.
    if (silent >= 3 && broken >= 1) throw new Error("the node has ended the session");
    const rows = await stats.read();
    rows["Node"] = answer.host;
    // What the node converts for this viewer.
    if (answer.sound && rows["Audio"]) rows["Audio"] = answer.sound;
    showStats(el("stats"), rows);
    silent = stats.flow.video + stats.flow.audio > 0 ? 0 : silent + 1;
    if (silent > 40) throw new Error("nothing came for too long");
    const sound = stats.bytes.audio > 0;
    el("sound").hidden = !sound || !video.muted;
    el("mute").hidden = !sound || video.muted;
    if (silent >= 3 && stats.bytes.video + stats.bytes.audio > 0) {
      tell("waiting", "The publisher is away; waiting for it…");
    } else if (video.readyState >= 2 && silent < 3) {
      backoff.reset();
      tell("live", "Live", stats.bytes.video > 0 ? null : "Sound only");
      el("spinner").hidden = true;
    } else if (stats.bytes.video > 0 && !stats.frames) {
      tell("connecting", "Receiving, waiting for a key frame…");
    }
  }
}

async function main() {
  if (!window.RTCPeerConnection) {
    tell("error", "This browser has no WebRTC, so it cannot play here.");
    return;
  }
  tell("connecting", "Connecting…");
  for (;;) {
    try {
      await play();
    } catch (error) {
      if (error instanceof Refused && error.status === 404) {
        tell("waiting", `Waiting for a publisher of ${key}…`);
        await wait(1000);
      } else {
        tell("connecting", `${error.message} – trying again…`);
        await backoff.pause();
      }
    }
  }
}

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
addEventListener("pagehide", () => end(current?.url));
main();
