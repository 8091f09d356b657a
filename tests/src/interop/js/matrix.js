// The signal of matrix/signal.rs in a page that has page.js: `hw.matrix.publish(name, url, codec)`,
// `hw.matrix.watch(name, url)`, `hw.matrix.seen(name)`.
window.hw.matrix = (() => {
  const { sessions, until, newSession, exchange } = hw.inside;
  const WIDTH = 320, HEIGHT = 180, FPS = 25, EVERY = 50, NUMBERS = 65500, PIP_S = 0.1;

  // Milliseconds of the page's clock at the context's time 0. The context's clock stands still between two blocks, so that the
  // least of many differences is the true one.
  const clockOf = context => {
    const clock = { zero: Infinity };
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

  const publish = async (name, url, codec, { ms = 20000 } = {}) => {
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
    session.media = new MediaStream([track, ...destination.stream.getAudioTracks()]);
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
    const node = new AudioWorkletNode(context, 'hw-hear', { numberOfInputs: 1, channelCount: 1, channelCountMode: 'explicit' });
    node.port.onmessage = ({ data }) => session.heard.push(data);
    node.connect(new GainNode(context, { gain: 0 })).connect(context.destination);
    const tracks = session.video.srcObject.getAudioTracks();
    if (tracks.length) context.createMediaStreamSource(new MediaStream(tracks)).connect(node);
  };

  // Plays, and from the first picture on remembers each: its points in two rows, their means, when it is shown, when it came.
  const watch = async (name, url, { ms = 20000 } = {}) => {
    const canvas = document.createElement('canvas');
    canvas.width = WIDTH; canvas.height = HEIGHT;
    const draw = canvas.getContext('2d', { willReadFrequently: true });
    const session = newSession(name);
    const video = session.video = document.createElement('video');
    video.autoplay = true; video.playsInline = true; video.width = WIDTH; video.muted = false;
    document.body.prepend(video);
    const stream = video.srcObject = new MediaStream();
    session.pc.ontrack = event => stream.addTrack(event.track);
    session.pc.addTransceiver('video', { direction: 'recvonly' });
    session.pc.addTransceiver('audio', { direction: 'recvonly' });
    session.pictures = []; session.unseen = 0;
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
      draw.drawImage(video, 0, 0, WIDTH, HEIGHT);
      session.frames += 1;
      if (presented !== null) session.unseen += Math.max(0, frame.presentedFrames - presented - 1);
      presented = frame.presentedFrames;
      const [[middles, means], [below, meansBelow]] = [half(0), half(HEIGHT / 2)];
      session.pictures.push([middles + below, means + meansBelow, frame.expectedDisplayTime, now]);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
    const start = performance.now();
    await exchange(session, url);
    video.play().catch(() => {});
    await until(`a picture of ${name}`, ms, () => session.frames > 0).catch(async e => {
      const told = [];
      for (const s of (await session.pc.getStats()).values()) {
        if (/candidate/.test(s.type)) told.push(`${s.type} ${s.address || ''}:${s.port || ''} ${s.state || ''}`);
      }
      throw new Error(`${e.message}; ${session.pc.iceConnectionState}; ${told.join(', ')}`);
    });
    session.startMs = performance.now() - start;
    await hear(session);
  };

  // Resolves once pictures were shown for so many milliseconds.
  const lasts = (name, span, ms) => until(`${span} ms of ${name}`, ms, () => {
    const { pictures } = sessions[name];
    return pictures.length && pictures[pictures.length - 1][3] - pictures[0][3] >= span;
  });

  const hex = bytes => Array.from(bytes, b => b.toString(16).padStart(2, '0')).join('');

  const seen = async name => {
    const session = sessions[name];
    clearInterval(session.clock.timer);
    const blocks = session.heard;
    const samples = new Int16Array(blocks.length * 1024);
    blocks.forEach(([, block], n) => block.forEach((v, i) => {
      samples[n * 1024 + i] = Math.max(-32767, Math.min(32767, Math.round(v * 32767)));
    }));
    let codecs = {};
    const all = await session.pc.getStats();
    for (const s of all.values()) {
      if (s.type === 'inbound-rtp' && s.codecId && all.get(s.codecId)) codecs[s.kind] = all.get(s.codecId).mimeType;
    }
    await session.context.close();
    return {
      pictures: session.pictures, unseen: session.unseen, startMs: session.startMs, codecs,
      zeroMs: session.clock.zero, frames: blocks.map(b => b[0]), samples: hex(new Uint8Array(samples.buffer)),
    };
  };

  const sent = name => sessions[name].sent;
  return { publish, watch, lasts, seen, sent };
})();
