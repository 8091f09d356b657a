// Functions for tests, put into a page as `window.hw`. Plain WHIP (RFC 9725) and WHEP, spoken as any client would.
window.hw = (() => {
  const sessions = {};
  // Addresses in answers, as `IP PORT`, that are to be dialled by other ones.
  const detours = [];

  // Waits for an event-like condition; `look` returns something truthy when it holds.
  const until = async (what, ms, look) => {
    const end = performance.now() + ms;
    for (;;) {
      const got = await look();
      if (got) return got;
      if (performance.now() > end) throw new Error(`waited ${ms} ms in vain for ${what}`);
      await new Promise(r => setTimeout(r, 20));
    }
  };

  const newSession = name => {
    const pc = new RTCPeerConnection();
    const session = { pc, states: [], frames: 0, video: null };
    pc.onconnectionstatechange = () => session.states.push(pc.connectionState);
    sessions[name] = session;
    return session;
  };

  const exchange = async (session, url) => {
    const offer = await session.pc.createOffer();
    await session.pc.setLocalDescription(offer);
    const answer = await fetch(url, {
      method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer.sdp,
    });
    const body = await answer.text();
    if (answer.status !== 201) throw new Error(`POST ${url}: ${answer.status} ${body}`);
    const location = answer.headers.get('Location');
    if (!location) throw new Error(`POST ${url}: no Location`);
    session.location = new URL(location, url).href;
    const sdp = detours.reduce((all, [from, to]) => all.replaceAll(from, to), body);
    await session.pc.setRemoteDescription({ type: 'answer', sdp });
  };

  // Plays `url` as `name`; resolves with the milliseconds from the POST to the first picture.
  const whep = async (name, url, { audio = true, ms = 20000 } = {}) => {
    const session = newSession(name);
    const video = document.createElement('video');
    video.muted = false; video.autoplay = true; video.playsInline = true; video.width = 320;
    document.body.prepend(video);
    session.video = video;
    const stream = new MediaStream();
    video.srcObject = stream;
    session.pc.ontrack = event => stream.addTrack(event.track);
    session.pc.addTransceiver('video', { direction: 'recvonly' });
    if (audio) session.pc.addTransceiver('audio', { direction: 'recvonly' });
    const first = new Promise(resolve => {
      const onFrame = () => {
        session.frames += 1;
        resolve(performance.now());
        video.requestVideoFrameCallback(onFrame);
      };
      video.requestVideoFrameCallback(onFrame);
    });
    const start = performance.now();
    await exchange(session, url);
    video.play().catch(() => {});
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(async () => {
        const state = session.pc.connectionState;
        reject(new Error(`no picture within ${ms} ms; ${state}; ${JSON.stringify(await stats(name))}`));
      }, ms);
    });
    const at = await Promise.race([first, late]);
    clearTimeout(timer);
    return at - start;
  };

  // Publishes the (fake) camera and microphone to `url` as `name`; resolves once connected. With `only` no other codec is
  // offered.
  const whip = async (name, url, { codec = 'video/H264', only = false, ms = 20000 } = {}) => {
    const session = newSession(name);
    session.media = await navigator.mediaDevices.getUserMedia({
      audio: true, video: { width: 320, height: 240, frameRate: 25 },
    });
    for (const track of session.media.getTracks()) {
      const t = session.pc.addTransceiver(track, { direction: 'sendonly', streams: [session.media] });
      if (track.kind === 'video') {
        const { codecs } = RTCRtpSender.getCapabilities('video');
        const wanted = codecs.filter(c => c.mimeType === codec);
        if (!wanted.length) throw new Error(`this browser sends no ${codec}`);
        const others = codecs.filter(c => c.mimeType !== codec && (!only || c.mimeType === 'video/rtx'));
        t.setCodecPreferences([...wanted, ...others]);
      }
    }
    await exchange(session, url);
    await until(`${name} to connect`, ms, () => session.pc.connectionState === 'connected');
    return session.location;
  };

  // From now on reads the number (see `Clip::numbered`) of each picture that a session shows; answers those that
  // were read so far, each with the milliseconds at which it was shown.
  const numbers = name => {
    const session = sessions[name];
    if (!session.numbers) {
      session.numbers = [];
      const canvas = document.createElement('canvas');
      canvas.width = 320; canvas.height = 180;
      const context = canvas.getContext('2d', { willReadFrequently: true });
      const onFrame = () => {
        context.drawImage(session.video, 0, 0, 320, 180);
        const row = context.getImageData(0, 45, 320, 1).data;
        let n = 0;
        for (let bit = 0; bit < 16; bit += 1) n |= (row[(bit * 20 + 10) * 4] > 127 ? 1 : 0) << bit;
        session.numbers.push([n, performance.now()]);
        session.video.requestVideoFrameCallback(onFrame);
      };
      session.video.requestVideoFrameCallback(onFrame);
    }
    return session.numbers;
  };

  // The numbers that tests look at, of all media of one session.
  const stats = async name => {
    const { pc, states, frames } = sessions[name];
    const out = { state: pc.connectionState, states, frames, audioEnergy: 0, audioPackets: 0, videoPackets: 0,
      framesDecoded: 0, keyFramesDecoded: 0, framesSent: 0, pliCount: 0, nackCount: 0, codecs: [] };
    for (const s of (await pc.getStats()).values()) {
      if (s.type === 'inbound-rtp' && s.kind === 'video') {
        out.framesDecoded += s.framesDecoded || 0; out.keyFramesDecoded += s.keyFramesDecoded || 0;
        out.videoPackets += s.packetsReceived || 0; out.pliCount += s.pliCount || 0;
        out.nackCount += s.nackCount || 0;
      } else if (s.type === 'inbound-rtp' && s.kind === 'audio') {
        out.audioPackets += s.packetsReceived || 0; out.audioEnergy += s.totalAudioEnergy || 0;
      } else if (s.type === 'outbound-rtp' && s.kind === 'video') {
        out.framesSent += s.framesSent || 0;
      } else if (s.type === 'codec') {
        out.codecs.push(s.mimeType);
      }
    }
    return out;
  };

  // A number that changes when the picture of a session changes.
  const checksum = name => {
    const canvas = document.createElement('canvas');
    canvas.width = 64; canvas.height = 48;
    const context = canvas.getContext('2d');
    context.drawImage(sessions[name].video, 0, 0, 64, 48);
    let hash = 2166136261;
    for (const byte of context.getImageData(0, 0, 64, 48).data) hash = Math.imul(hash ^ byte, 16777619);
    return hash >>> 0;
  };

  // Resolves once a session has shown `count` more frames with at least `pictures` different pictures among them.
  const moving = async (name, { count = 25, pictures = 5, ms = 20000 } = {}) => {
    const session = sessions[name];
    const from = session.frames;
    const seen = new Set();
    await until(`${count} frames with ${pictures} pictures of ${name}`, ms, () => {
      seen.add(checksum(name));
      return session.frames >= from + count && seen.size >= pictures;
    });
    return seen.size;
  };

  // Resolves once a session has shown `count` more frames.
  const showFrames = (name, count, ms = 20000) => {
    const from = sessions[name].frames;
    return until(`${count} more frames of ${name}`, ms, () => sessions[name].frames >= from + count);
  };

  // Resolves once sound that is not silence arrived since the call.
  const sounding = async (name, ms = 20000) => {
    const before = (await stats(name)).audioEnergy;
    return until(`sound of ${name}`, ms, async () => (await stats(name)).audioEnergy > before + 1e-6);
  };

  // The loudest frequency of a session's sound in Hz, over about a second, once there is sound.
  const tone = async (name, ms = 20000) => {
    await sounding(name, ms);
    const context = new AudioContext();
    await context.resume();
    const tracks = sessions[name].video.srcObject.getAudioTracks();
    const analyser = new AnalyserNode(context, { fftSize: 16384, smoothingTimeConstant: 0 });
    context.createMediaStreamSource(new MediaStream(tracks)).connect(analyser);
    const bins = new Float32Array(analyser.frequencyBinCount);
    const loudest = await until(`a tone of ${name}`, ms, async () => {
      await new Promise(r => setTimeout(r, 700));
      analyser.getFloatFrequencyData(bins);
      const at = bins.reduce((best, level, i) => level > bins[best] ? i : best, 0);
      return bins[at] > -60 && at;
    });
    const rate = context.sampleRate;
    await context.close();
    return loudest * rate / 16384;
  };

  const end = async name => {
    const session = sessions[name];
    session.pc.close();
    if (session.media) session.media.getTracks().forEach(t => t.stop());
    if (session.video) session.video.remove();
    delete sessions[name];
    const answer = await fetch(session.location, { method: 'DELETE' });
    return answer.status;
  };

  // `inside`: for further scripts.
  return { inside: { detours, sessions, until, newSession, exchange }, numbers, sessions, until, whep, whip, stats, checksum, moving, showFrames, sounding, tone, end };
})();
