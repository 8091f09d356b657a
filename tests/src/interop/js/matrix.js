// The signal of matrix/signal.rs in a page that has page.js: `hw.matrix.publish(name, url, codec)`,
// `hw.matrix.watch(name, url)`, `hw.matrix.slice(name, span, ms)`, `hw.matrix.seen(name)`.
window.hw.matrix = (() => {
  const { sessions, until, newSession, exchange } = hw.inside;
  const WIDTH = 320, HEIGHT = 180, FPS = 25, EVERY = 50, NUMBERS = 65500, PIP_S = 0.1;

  // Milliseconds of the page's clock at the context's time 0. The context's clock stands still between two blocks, so that the
  // least of many differences is the true one. `before` is that of the slice before.
  const clockOf = context => {
    const clock = { zero: Infinity, before: Infinity };
    const look = () => { clock.zero = Math.min(clock.zero, performance.now() - context.currentTime * 1000); };
    clock.timer = setInterval(look, 7);
    look();
    return clock;
  };

  // Resolves once a context runs. Where there is no sound device its own promise never would.
  const runs = (context, ms) => {
    context.resume();
    return until('sound to run', ms, () => context.currentTime > 0);
  };

  // `only`: pictures alone or sound alone.
  const publish = async (name, url, codec, { ms = 20000, only = '' } = {}) => {
    const session = newSession(name);
    const canvas = document.createElement('canvas');
    canvas.width = WIDTH; canvas.height = HEIGHT;
    document.body.append(canvas);
    const draw = canvas.getContext('2d', { willReadFrequently: true });
    const context = new AudioContext({ sampleRate: 48000 });
    await runs(context, ms);
    const destination = context.createMediaStreamDestination();
    const oscillator = (hz, level) => {
      const source = new OscillatorNode(context, { frequency: hz });
      const gain = new GainNode(context, { gain: level });
      source.connect(gain).connect(destination);
      source.start();
      return gain.gain;
    };
    oscillator(440, 0.1);
    const pip = oscillator(2000, 0);
    const clock = clockOf(context);
    await until('a steady clock', ms, () => context.currentTime > 0.5);
    const pictures = canvas.captureStream(0);
    const [track] = pictures.getVideoTracks();
    track.contentHint = 'motion';
    const tracks = [track, ...destination.stream.getAudioTracks()].filter(t => !only || t.kind === only);
    session.media = new MediaStream(tracks);
    session.sent = 0;
    const zero = performance.now() + 1000;
    const paint = () => {
      if (sessions[name] !== session) {
        clearInterval(clock.timer);
        context.close();
        canvas.remove();
        return;
      }
      const n = Math.floor((performance.now() - zero) * FPS / 1000);
      if (n >= 0 && n !== session.last) {
        session.last = n;
        for (let bit = 0; bit < 16; bit += 1) {
          const one = (n % NUMBERS) >> bit & 1;
          draw.fillStyle = one ? '#fff' : '#000';
          draw.fillRect(bit * WIDTH / 16, 0, WIDTH / 16, HEIGHT / 2);
          draw.fillStyle = one ? '#000' : '#fff';
          draw.fillRect(bit * WIDTH / 16, HEIGHT / 2, WIDTH / 16, HEIGHT / 2);
        }
        // Where Firefox has it, and where others do.
        (pictures.requestFrame ? pictures : track).requestFrame();
        session.sent += 1;
        const next = (n % EVERY === EVERY / 2) ? n + EVERY / 2 : null;
        if (next !== null) {
          const at = (zero + next * 1000 / FPS - clock.zero) / 1000;
          pip.setValueAtTime(0.5, at);
          pip.setValueAtTime(0, at + PIP_S);
        }
      }
      const due = zero + (Math.max(n, -1) + 1) * 1000 / FPS;
      setTimeout(paint, Math.max(1, due - performance.now()));
    };
    for (const media of session.media.getTracks()) {
      const t = session.pc.addTransceiver(media, { direction: 'sendonly', streams: [session.media] });
      if (media.kind === 'video') {
        const { codecs } = RTCRtpSender.getCapabilities('video');
        const wanted = codecs.filter(c => c.mimeType === codec);
        if (!wanted.length) throw new Error(`this browser sends no ${codec}`);
        if (t.setCodecPreferences) t.setCodecPreferences([...wanted, ...codecs.filter(c => c.mimeType === 'video/rtx')]);
      }
    }
    paint();
    await exchange(session, url);
    await until(`${name} to connect`, ms, () => session.pc.connectionState === 'connected');
    return session.location;
  };

  // The worklet hands over what it hears, a thousand samples at a time.
  const WORKLET = `
    registerProcessor('hw-hear', class extends AudioWorkletProcessor {
      constructor() { super(); this.held = new Float32Array(1024); this.n = 0; }
      process([input]) {
        const channel = input && input[0];
        for (let i = 0; i < 128; i += 1) this.held[this.n + i] = channel ? channel[i] : 0;
        this.n += 128;
        if (this.n === 1024) {
          this.port.postMessage([currentFrame + 128 - 1024, this.held]);
          this.held = new Float32Array(1024); this.n = 0;
        }
        return true;
      }
    });`;

  const hear = async session => {
    const context = session.context = new AudioContext({ sampleRate: 48000 });
    await runs(context, 20000);
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([WORKLET], { type: 'text/javascript' })));
    session.clock = clockOf(context);
    session.heard = [];
    const take = ({ data: [frame, block] }) => {
      const samples = new Int16Array(block.length);
      block.forEach((v, i) => { samples[i] = Math.max(-32767, Math.min(32767, Math.round(v * 32767))); });
      session.heard.push([frame, hex(new Uint8Array(samples.buffer))]);
    };
    const node = new AudioWorkletNode(context, 'hw-hear', { numberOfInputs: 1, channelCount: 1, channelCountMode: 'explicit' });
    node.port.onmessage = take;
    node.connect(new GainNode(context, { gain: 0 })).connect(context.destination);
    const tracks = session.video.srcObject.getAudioTracks();
    if (tracks.length) context.createMediaStreamSource(new MediaStream(tracks)).connect(node);
  };

  // Plays, and from the first picture on remembers each: its points in two rows, their means, when it is shown, when it came.
  // `only`: asks for pictures alone or sound alone; `pictures`: whether there are any to wait for.
  const watch = async (name, url, { ms = 20000, only = '', pictures = true } = {}) => {
    const canvas = document.createElement('canvas');
    canvas.width = WIDTH; canvas.height = HEIGHT;
    const draw = canvas.getContext('2d', { willReadFrequently: true });
    const session = newSession(name);
    const video = session.video = document.createElement('video');
    video.autoplay = true; video.playsInline = true; video.width = WIDTH; video.muted = false;
    document.body.prepend(video);
    const stream = video.srcObject = new MediaStream();
    session.pc.ontrack = event => stream.addTrack(event.track);
    for (const kind of ['video', 'audio']) {
      if (!only || kind === only) session.pc.addTransceiver(kind, { direction: 'recvonly' });
    }
    session.pictures = []; session.unseen = 0; session.lasted = 0;
    // Of each column of a half its middle, and the mean over it (fifty points), which is what players that scale read.
    const half = top => {
      const { data } = draw.getImageData(0, top, WIDTH, HEIGHT / 2);
      const at = (x, y) => data[(y * WIDTH + x) * 4 + 1];
      const middles = [], means = [];
      for (let left = 0; left < WIDTH; left += WIDTH / 16) {
        let sum = 0;
        for (let x = 2; x < 20; x += 4) for (let y = 4; y < 90; y += 9) sum += at(left + x, y);
        middles.push(at(left + 10, 45)); means.push(Math.round(sum / 50));
      }
      return [hex(middles), hex(means)];
    };
    let presented = null;
    const onFrame = (now, frame) => {
      draw.clearRect(0, 0, WIDTH, HEIGHT);
      draw.drawImage(video, 0, 0, WIDTH, HEIGHT);
      session.frames += 1;
      if (presented !== null) session.unseen += Math.max(0, frame.presentedFrames - presented - 1);
      presented = frame.presentedFrames;
      const [[middles, means], [below, meansBelow]] = [half(0), half(HEIGHT / 2)];
      video.requestVideoFrameCallback(onFrame);
      // Nothing was drawn: so it is with one of some dozen first pictures in Chromium.
      if (!draw.getImageData(0, 0, 1, 1).data[3]) {
        if (session.began) session.unseen += 1;
        return;
      }
      session.pictures.push([middles + below, means + meansBelow, frame.expectedDisplayTime, now]);
      session.began ??= now;
      session.lasted = now - session.began;
    };
    video.requestVideoFrameCallback(onFrame);
    const start = performance.now();
    await exchange(session, url);
    video.play().catch(() => {});
    const comes = async () => {
      if (pictures) return session.frames > 0;
      const all = [...(await session.pc.getStats()).values()];
      return all.some(s => s.type === 'inbound-rtp' && s.kind === 'audio' && s.packetsReceived > 0);
    };
    await until(`${pictures ? 'a picture' : 'sound'} of ${name}`, ms, comes).catch(async e => {
      const told = [];
      for (const s of (await session.pc.getStats()).values()) {
        if (/candidate/.test(s.type)) told.push(`${s.type} ${s.address || ''}:${s.port || ''} ${s.state || ''}`);
      }
      throw new Error(`${e.message}; ${session.pc.iceConnectionState}; ${told.join(', ')}`);
    });
    const now = performance.now();
    session.startMs = now - start;
    if (!pictures) session.began = now;
    session.pictured = pictures;
    await hear(session);
  };

  const HEX = Array.from({ length: 256 }, (_, b) => b.toString(16).padStart(2, '0'));
  const hex = bytes => {
    let all = '';
    for (const b of bytes) all += HEX[b];
    return all;
  };

  // Hands over what was seen and heard since the last time.
  const take = session => {
    const { pictures, unseen, heard, clock, startMs } = session;
    session.pictures = []; session.unseen = 0; session.heard = [];
    const zeroMs = Math.min(clock.zero, clock.before);
    if (clock.zero !== Infinity) { clock.before = clock.zero; clock.zero = Infinity; }
    return { pictures, unseen, startMs, zeroMs, frames: heard.map(h => h[0]), samples: heard.map(h => h[1]).join('') };
  };

  // Hands that over once media came for `span` milliseconds in all, and after `ms` at the latest; `over`: it did.
  const slice = async (name, span, ms) => {
    const session = sessions[name];
    const over = await until(`${span} ms of ${name}`, ms, () => {
      if (!session.pictured) session.lasted = performance.now() - session.began;
      return session.lasted >= span;
    }).catch(() => false);
    return { ...take(session), over };
  };

  // Hands over the rest, and ends.
  const seen = async name => {
    const session = sessions[name];
    clearInterval(session.clock.timer);
    const codecs = {};
    const all = await session.pc.getStats();
    for (const s of all.values()) {
      if (s.type === 'inbound-rtp' && s.codecId && all.get(s.codecId)) codecs[s.kind] = all.get(s.codecId).mimeType;
    }
    await session.context.close();
    return { ...take(session), codecs };
  };

  const sent = name => sessions[name].sent;
  return { publish, watch, slice, seen, sent };
})();
