// A client of the websocket dialect for tests, in a page that has page.js: `hw.ws.publish(name, url, stream)`,
// `hw.ws.subscribe(name, url, stream)`. Everything that was said stands in `session.log`, in order.
window.hw.ws = (() => {
  const { sessions, until, newSession } = hw.inside;

  const open = (session, url) => new Promise((resolve, reject) => {
    session.log = []; session.said = []; session.channelTexts = 0;
    const ws = session.ws = new WebSocket(url);
    ws.onmessage = event => session.take(JSON.parse(event.data), 'socket');
    ws.onclose = event => session.log.push(`closed ${event.code}`);
    ws.onerror = () => reject(new Error(`no websocket at ${url}`));
    session.take = (message, way) => {
      if (way === 'channel') session.channelTexts += 1;
      session.said.push(message);
      const data = message.data || {};
      const what = 'isAvailable' in message ? 'isAvailable' : message.type || data.code
        || (data.sdp && data.sdp.type) || data.type || Object.keys(message)[0];
      session.log.push(`< ${what}${data.message ? ` ${data.message}` : ''}`);
      if (data.sdp && data.sdp.type === 'answer') session.described = session.pc.setRemoteDescription(data.sdp);
      if (data.type === 'candidate') session.pc.addIceCandidate(data.candidate).catch(e => session.log.push(`! ${e}`));
      if (data.code === 'NetConnection.DataChannel.Available' && session.switches) session.switchOver();
      if (data.code === 'NetConnection.Connect.Success') resolve();
    };
    session.say = message => {
      session.log.push(`> ${Object.keys(message)[0]}`);
      if (session.switched) session.channel.send(JSON.stringify(message, null, 2));
      else ws.send(JSON.stringify(message));
    };
    session.switchOver = () => {
      session.say({ switchChannel: 'red5pro' });
      session.switched = true;
      ws.close();
    };
    session.pc.onicecandidate = ({ candidate }) => {
      const body = candidate && candidate.candidate
        ? candidate.toJSON() : { type: 'candidate', candidate: '' };
      if (candidate === null) session.say({ handleCandidate: session.stream, data: { candidate: body } });
      else session.say({ handleCandidate: session.stream, requestId: session.id, data: { candidate: body } });
    };
  });

  const heard = (session, what, ms = 20000) => until(`${what} among ${JSON.stringify(session.log)}`, ms,
    () => session.said.find(m => {
      const data = m.data || {};
      return data.code === what || (data.sdp && data.sdp.type === what) || what in m || data.type === what;
    }));

  const openChannel = session => {
    const channel = session.channel = session.pc.createDataChannel('red5pro', { ordered: true });
    channel.onmessage = event => session.take(JSON.parse(event.data), 'channel');
  };

  const publish = async (name, url, stream, { switches = true } = {}) => {
    const session = newSession(name);
    Object.assign(session, { stream, switches });
    await open(session, url);
    session.say({ isAvailable: stream, bundle: true });
    if ((await heard(session, 'isAvailable')).isAvailable !== false) throw new Error('the name is taken');
    const media = await navigator.mediaDevices.getUserMedia({
      audio: true, video: { width: 320, height: 240, frameRate: 25 },
    });
    for (const track of media.getTracks()) session.pc.addTrack(track, media);
    openChannel(session);
    const offer = await session.pc.createOffer();
    session.say({ handleOffer: stream, transport: 'udp', data: { sdp: { sdp: offer.sdp, type: 'offer' } } });
    await session.pc.setLocalDescription(offer);
    await heard(session, 'answer');
    await session.described;
    await heard(session, 'NetConnection.ICE.TrickleCompleted');
    session.say({ publish: stream, mode: 'live', keyFramerate: 3000 });
    await heard(session, 'NetStream.Publish.Start');
    await until(`${name} to connect`, 20000, () => session.pc.connectionState === 'connected');
  };

  const subscribe = async (name, url, stream, { switches = true, datachannel = true } = {}) => {
    const session = newSession(name);
    Object.assign(session, { stream, switches, id: new URL(url).searchParams.get('id') });
    const video = document.createElement('video');
    video.muted = false; video.autoplay = true; video.playsInline = true; video.width = 320;
    document.body.prepend(video);
    session.video = video;
    const onFrame = () => { session.frames += 1; video.requestVideoFrameCallback(onFrame); };
    video.requestVideoFrameCallback(onFrame);
    const tracks = new MediaStream();
    video.srcObject = tracks;
    session.pc.ontrack = event => tracks.addTrack(event.track);
    await open(session, url);
    session.say({ isAvailable: stream });
    if ((await heard(session, 'isAvailable')).isAvailable !== true) throw new Error('the stream is not live');
    session.say({ requestOffer: stream, requestId: session.id, transport: 'udp', datachannel, doNotSwitch: false });
    const offer = await heard(session, 'offer');
    const set = session.pc.setRemoteDescription(offer.data.sdp);
    if (datachannel) openChannel(session);
    await set;
    const answer = await session.pc.createAnswer();
    await session.pc.setLocalDescription(answer);
    session.say({ handleAnswer: stream, requestId: session.id, data: { sdp: { sdp: answer.sdp, type: 'answer' } } });
    await heard(session, 'NetConnection.ICE.TrickleCompleted');
    session.say({ subscribe: stream, requestId: session.id });
    await heard(session, 'NetStream.Play.Start');
    video.play().catch(() => {});
    await until(`${name} to show a picture`, 20000, () => session.frames > 0);
  };

  const log = name => sessions[name].log;
  const said = name => sessions[name].said;
  const say = (name, message) => sessions[name].say(message);
  const wait = (name, what, ms) => heard(sessions[name], what, ms);
  // Resolves once the session has gone over to its data channel and its websocket is closed.
  const onChannel = name => until(`${name} to switch`, 20000, () => {
    const session = sessions[name];
    return session.switched && session.ws.readyState === WebSocket.CLOSED && session.log;
  });
  const heardOnChannel = name => sessions[name].channelTexts;
  const closeSocket = name => sessions[name].ws.close();
  return { publish, subscribe, log, said, say, wait, onChannel, heardOnChannel, closeSocket };
})();
