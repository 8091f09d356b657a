//! Every limit of a node, in one table: the number, its key in the configuration, its meaning and the abuse it
//! answers. Nothing else in the crate holds a number that bounds what a peer can do.

use crate::simulation::Switches;

/// Declares the table: one field, one configuration key (`limits.<field>`), one default, one doc line.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:expr;)+) => {
        /// The limits in force. Keys in the configuration are `limits.` and the field's name.
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: $ty,)+
            /// What a simulation switched on. No configuration reaches it; it rides here because every machine is
            /// handed the limits.
            #[serde(skip)]
            pub simulation: Switches,
        }

        impl Default for Limits {
            fn default() -> Self { Limits { $($name: $default,)+ simulation: Switches::default() } }
        }

        impl Limits {
            /// Name and explanation of each limit, in the table's order.
            pub const DOCS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc),+)),)+];
        }
    };
}

limits! {
    /// A1: whole RTMP handshake, milliseconds.
    rtmp_handshake_ms: u64 = 10_000;
    /// A2: chunk streams that one RTMP connection may use.
    rtmp_chunk_streams: usize = 64;
    /// A2: RTMP messages that may be partly received at once.
    rtmp_partial_messages: usize = 8;
    /// A2: bytes of partly received RTMP messages once publishing is accepted.
    rtmp_partial_bytes: usize = 4 << 20;
    /// A2: bytes of partly received RTMP messages before publishing is accepted.
    rtmp_partial_bytes_before: usize = 24 << 10;
    /// A5: nesting depth of an AMF value.
    amf_depth: usize = 16;
    /// A5: properties of an AMF command in all.
    amf_properties: usize = 512;
    /// A5: properties of an AMF command before publish or play is accepted.
    amf_properties_before: usize = 128;
    /// A5: bytes of one AMF string.
    amf_string_bytes: usize = 64 << 10;
    /// A5: bytes of one AMF string before publish or play is accepted: a name, or a token.
    amf_string_bytes_before: usize = 4_608;
    /// A5: bytes of one AMF command.
    amf_command_bytes: usize = 256 << 10;
    /// A5: bytes of one AMF command before publish or play is accepted.
    amf_command_bytes_before: usize = 8 << 10;
    /// A7: message streams of one RTMP connection.
    rtmp_streams: usize = 8;
    /// A7: commands on an RTMP connection before publish or play is accepted.
    rtmp_commands_before: u32 = 32;
    /// A7: commands a second on an RTMP connection after that.
    rtmp_commands_per_s: u32 = 20;
    /// RTMP: acknowledgements stand at least this many received bytes apart, whatever window a peer asks for.
    rtmp_ack_bytes: u32 = 64 << 10;
    /// RTMP: nothing was heard from a peer that publishes or plays, milliseconds, before it is taken for dead.
    rtmp_idle_ms: u64 = 30_000;
    /// A8: bytes of one line of an RTSP head.
    rtsp_line_bytes: usize = 8 << 10;
    /// A8: headers of one RTSP message.
    rtsp_headers: usize = 64;
    /// A8: bytes of an RTSP head.
    rtsp_head_bytes: usize = 12 << 10;
    /// A9: bytes of an RTSP message, head and body (an announcement comes before it is known who sends it).
    rtsp_message_bytes: usize = 16 << 10;
    /// A8: whole RTSP message, milliseconds, from its first byte.
    rtsp_head_ms: u64 = 10_000;
    /// RTSP requests a second on one connection.
    rtsp_requests_per_s: u32 = 50;
    /// A10: interleaved packets on channels that are not open, or before RECORD or PLAY, and the connection is closed.
    rtsp_stray_packets: u32 = 3;
    /// A12: the timeout that RTSP clients are told, seconds; they keep their session alive more often than that.
    rtsp_timeout_s: u64 = 20;
    /// A11, A12: nothing was heard from an RTSP client for this long, milliseconds, and its session ends.
    rtsp_idle_ms: u64 = 30_000;
    /// A6: bytes that may wait for a slow TCP viewer before it skips to the next key frame.
    viewer_queue_bytes: usize = 4 << 20;
    /// A6: seconds of media that may wait for a slow viewer, milliseconds.
    viewer_queue_ms: u64 = 2_000;
    /// A6: no byte accepted for this long, milliseconds, and the viewer is closed.
    viewer_stuck_ms: u64 = 5_000;
    /// A6: neither a whole key frame nor sound got through for this long, milliseconds, and the viewer is evicted.
    viewer_starved_ms: u64 = 10_000;
    /// A6: a newcomer's cached group does not count against it for this long, milliseconds.
    viewer_newcomer_ms: u64 = 5_000;
    /// A2, A10: bytes of a connection that are held while the node thinks about its first wish to publish or play.
    conn_early_bytes: usize = 12 << 10;
    /// A21: bytes that the driver holds for the sending side of a connection that neither publishes nor plays.
    conn_idle_write_bytes: usize = 8 << 10;
    /// A8: bytes of one HTTP request or header line.
    http_line_bytes: usize = 8 << 10;
    /// A8: headers of one HTTP request.
    http_headers: usize = 64;
    /// A8: bytes of a whole HTTP head.
    http_head_bytes: usize = 16 << 10;
    /// A8: whole HTTP head, milliseconds, from its first byte (or from the connection's start).
    http_head_ms: u64 = 10_000;
    /// A21: an idle kept-alive HTTP connection is closed after this, milliseconds.
    http_idle_ms: u64 = 60_000;
    /// A9: bytes of an SDP body over HTTP.
    http_sdp_bytes: usize = 40 << 10;
    /// A9: bytes of one HTTP request, head and body.
    http_message_bytes: usize = 48 << 10;
    /// A9: bytes of a JSON body.
    http_json_bytes: usize = 16 << 10;
    /// A21: bytes a second that an HTTP peer must bring while a body is partly received, once `http_head_ms` has passed.
    http_min_bytes_per_s: u64 = 500;
    /// A22: bytes of further requests that may wait behind an unanswered one.
    http_pipelined_bytes: usize = 16 << 10;
    /// A22: an HTTP connection's further requests wait while more bytes of its answers than this are unread.
    http_unread_bytes: usize = 8 << 10;
    /// HTTP: after a refusal, input is read and dropped for this long, milliseconds, so that the words arrive.
    http_linger_ms: u64 = 1_000;
    /// A18: bytes of one websocket message.
    ws_message_bytes: usize = 64 << 10;
    /// A18: bytes of one websocket message before its peer publishes, plays or is proxied.
    ws_message_bytes_before: usize = 24 << 10;
    /// A18: bytes that may wait for a slow reader of a websocket before it publishes, plays or is proxied.
    ws_queue_bytes_before: usize = 16 << 10;
    /// A18: bytes that may wait for a slow reader of a websocket before it is closed.
    ws_queue_bytes: usize = 256 << 10;
    /// A18: a websocket that is silent for this long is sent a ping, milliseconds.
    ws_ping_ms: u64 = 20_000;
    /// A18: a websocket without any frame from its peer for this long is closed, milliseconds.
    ws_idle_ms: u64 = 60_000;
    /// A18: control frames a second that a websocket's peer may send.
    ws_controls_per_s: u32 = 20;
    /// A18: messages a second that a websocket's peer may send before it publishes, plays or is proxied.
    ws_messages_per_s_before: u32 = 100;
    /// A18: messages a second that a websocket's peer may send.
    ws_messages_per_s: u32 = 250;
    /// A websocket that we close waits for its peer's close frame for this long, milliseconds.
    ws_close_ms: u64 = 2_000;
    /// Signalling messages a second of one client; candidates come in bursts.
    signalling_messages_per_s: u32 = 200;
    /// JSON values of one signalling message before its sender publishes or plays: each takes more memory than it takes bytes.
    signalling_values: usize = 256;
    /// A signalling websocket on which nothing is published or played is closed after this, milliseconds.
    signalling_wait_ms: u64 = 600_000;
    /// A18: websockets that one address may have proxied at a time.
    proxy_per_ip: usize = 10;
    /// A18: websockets that are proxied at a time, in all.
    proxy_sessions: usize = 10_000;
    /// A node that does not answer the proxy for this long is given up, milliseconds.
    proxy_dial_ms: u64 = 5_000;
    /// How long the proxy waits for the answer to a WHIP or WHEP request that it carries, milliseconds.
    proxy_answer_ms: u64 = 20_000;
    /// The most bytes of an answer that one loop of a process takes of another (`node.loops`): lists and metrics.
    loop_answer_bytes: usize = 16 << 20;
    /// A18: an address that the manager gave out may be named as the proxy's target for this long, milliseconds.
    proxy_grant_ms: u64 = 60_000;
    /// A18: addresses given out that are remembered; the oldest is forgotten first.
    proxy_grants: usize = 100_000;
    /// A21: whole TLS handshake, milliseconds.
    tls_handshake_ms: u64 = 10_000;
    /// TLS handshakes that begin in one turn of the loop, in microseconds of work (500 each); others wait for the next.
    tls_handshake_us_per_turn: u64 = 2_000;
    /// A21: bytes of a connection that are kept until there is time for its TLS handshake.
    tls_hello_bytes: usize = 18 << 10;
    /// Certificate files are looked at this often, milliseconds.
    tls_reload_ms: u64 = 5_000;
    /// A10: bytes that one connection may bring in one turn of the loop.
    conn_read_per_turn: usize = 64 << 10;
    /// Bytes that the driver holds for one connection's sending side.
    conn_write_buffer: usize = 256 << 10;
    /// A21: connections of one address that neither publish nor play.
    conns_per_ip: usize = 64;
    /// A21: connections in all.
    conns: usize = 16_000;
    /// A21: nothing is accepted for this long after the process ran out of descriptors, milliseconds.
    accept_pause_ms: u64 = 50;
    /// A14: WebRTC sessions in all.
    rtc_sessions: usize = 10_000;
    /// A15: WebRTC sessions whose handshake has not ended, in all.
    rtc_handshakes: usize = 4_096;
    /// A15: WebRTC sessions whose handshake has not ended, per source address.
    rtc_handshakes_per_ip: usize = 32;
    /// A15: whole ICE and DTLS handshake, milliseconds.
    rtc_handshake_ms: u64 = 10_000;
    /// A15: handshake work in one turn of the loop, microseconds (counted in datagrams at 100 µs each).
    rtc_handshake_us_per_turn: u64 = 2_000;
    /// RFC 7675: no authenticated packet for this long, milliseconds, and the WebRTC session is dead.
    rtc_consent_ms: u64 = 30_000;
    /// A15: handshake datagrams that wait for the next turn; DTLS sends again what is dropped.
    rtc_handshake_queue: usize = 512;
    /// Bytes that may wait on the data channels of one WebRTC session; a message that finds no room is dropped.
    rtc_channel_bytes: usize = 128 << 10;
    /// A13: anonymous STUN requests a second that are answered for one network (IPv4 /24, IPv6 /56).
    stun_per_net_per_s: u32 = 20;
    /// A13: anonymous STUN requests a second that are answered in all.
    stun_per_s: u32 = 200;
    /// Packets kept per viewer and track to be sent again.
    rtc_rtx_packets: usize = 1_024;
    /// Packets older than this are not sent again, milliseconds.
    rtc_rtx_ms: u64 = 1_000;
    /// Frames that may wait for their turn to be sent to one WebRTC viewer; beyond, it goes on with the next key frame.
    rtc_viewer_frames: usize = 512;
    /// Bytes that may wait for one connection of ICE over TCP; what finds no room is lost, or left out up to the next key
    /// frame. Each such connection of a session counts for so many against `limits.memory_bytes`.
    ice_tcp_queue_bytes: usize = 256 << 10;
    /// A viewer over TCP whose next frame has waited for so long goes on with the next key frame, milliseconds.
    ice_tcp_behind_ms: u64 = 1_000;
    /// Lost packets of a WebRTC publisher that are remembered and asked for; where more are missing, a key frame is.
    rtc_missing_packets: usize = 1_024;
    /// How long a publisher's pictures wait at least for a lost packet to be sent again, milliseconds; on long ways they
    /// wait for five round trips, and at most for `jitter_ms`.
    rtc_video_wait_ms: u64 = 300;
    /// How long a publisher's sound waits for a lost packet, milliseconds.
    rtc_audio_wait_ms: u64 = 100;
    /// Packets of a publisher's sound that may wait for a lost one.
    rtc_audio_packets: usize = 256;
    /// A16: lines of one SDP section.
    sdp_lines: usize = 512;
    /// A16: media sections of one SDP.
    sdp_sections: usize = 32;
    /// A16: payload types of one media section.
    sdp_payload_types: usize = 64;
    /// A16, A17: candidates of one SDP, and remote candidates of one session.
    sdp_candidates: usize = 64;
    /// A16: header extensions of one media section.
    sdp_extmaps: usize = 16;
    /// A27: SSRCs of one session.
    rtp_ssrcs: usize = 8;
    /// A27: sequence numbers that one NACK entry may ask for is fixed by its format (17); key-frame requests a second per stream.
    key_requests_per_s: u32 = 2;
    /// A27: share of the sent rate that retransmission may use, percent.
    rtx_percent: u32 = 25;
    /// A28: bytes of one access unit.
    frame_bytes: usize = 4 << 20;
    /// A28: RTP packets of one access unit.
    frame_packets: usize = 4_096;
    /// A28: a reorder buffer holds at most this, milliseconds.
    jitter_ms: u64 = 2_000;
    /// A28: a timestamp jump beyond this is a discontinuity, milliseconds.
    discontinuity_ms: u64 = 10_000;
    /// Frames that a stream's ring holds.
    ring_frames: usize = 4_096;
    /// Bytes that a stream's ring holds.
    ring_bytes: usize = 32 << 20;
    /// Bytes that a stream's ring is sure of in a node whose memory is taken; less than this, and no stream is let in.
    ring_bytes_min: u64 = 8 << 20;
    /// Bytes that a node's sessions and rings may hold. Whoever would take it further is refused.
    memory_bytes: u64 = 4 << 30;
    /// Bytes that a session that publishes or plays counts for against `limits.memory_bytes`.
    session_bytes: u64 = 512 << 10;
    /// Seconds of media that a stream's ring holds, milliseconds.
    ring_ms: u64 = 30_000;
    /// Tracks of one stream.
    stream_tracks: usize = 8;
    /// Streams of one node, and streams that it pulls or looks for (A29).
    streams: usize = 10_000;
    /// Subscribers of one stream.
    stream_subscribers: usize = 10_000;
    /// A stream and its viewers stay for this long without a source, milliseconds.
    stream_hold_ms: u64 = 30_000;
    /// A24: a live session that has been silent this long yields its name, milliseconds.
    stream_silent_ms: u64 = 3_000;
    /// Sound bridges (AAC to Opus, Opus to AAC) of one node; one costs about 1 % of a core. Beyond that, viewers who need
    /// one get a silent picture and the reason.
    bridges: usize = 64;
    /// Picture bridges (H.264 with B-frames, or H.265, to H.264 without) of one node; one costs about half a core for 720p30. Beyond that,
    /// viewers who need one get sound only, and the reason.
    video_bridges: usize = 2;
    /// Pieces of work that one bridge may have under way.
    bridge_works: usize = 4;
    /// A bridge whose last viewer left goes on for this long; one that failed is tried again after it, and after twice as
    /// long each time that it fails again, five minutes at most, milliseconds.
    bridge_linger_ms: u64 = 5_000;
    /// A bridge that does not answer a piece of work within this is given up, milliseconds: its codec hangs.
    bridge_answer_ms: u64 = 10_000;
    /// Sources and destinations of one node.
    remotes: usize = 1_000;
    /// Bytes of one RTSP message from a server that this node pulls from or pushes to, head and body.
    remote_message_bytes: usize = 64 << 10;
    /// A server that this node pulls from or pushes to must let it begin within this, milliseconds, connecting included.
    remote_setup_ms: u64 = 10_000;
    /// A source from which no picture or sound came for this long is connected anew, milliseconds.
    remote_silent_ms: u64 = 10_000;
    /// A source that agreed to send datagrams and sent none for this long is asked to use the connection, milliseconds.
    remote_udp_wait_ms: u64 = 3_000;
    /// The first wait before a source or destination that failed is tried again, milliseconds; doubles with each failure.
    remote_retry_min_ms: u64 = 1_000;
    /// The longest wait before a source or destination that failed is tried again, milliseconds.
    remote_retry_max_ms: u64 = 30_000;
    /// A source or destination that worked for this long begins with the shortest wait again, milliseconds.
    remote_stable_ms: u64 = 60_000;
    /// How often a node that has an "always" source looks whether it may pull it, while another node does, milliseconds.
    remote_standby_ms: u64 = 2_000;
    /// A source "on demand" whose last viewer left is pulled for this long, milliseconds.
    source_linger_ms: u64 = 10_000;
    /// How long the first viewers of a source "on demand" wait for its first picture or sound, milliseconds.
    source_wait_ms: u64 = 10_000;
    /// Redirects that a source or destination may answer with in a row.
    remote_redirects: u32 = 4;
    /// A29: hops of a relay chain.
    relay_hops: usize = 4;
    /// Where an origin uses so much of what it can, percent, nodes that ask for its streams pull them from a node that relays
    /// them already, if there is one; above 100: never for that reason.
    relay_spread_percent: u32 = 80;
    /// A29: a name that was not found is not asked for again for this long, milliseconds.
    negative_cache_ms: u64 = 1_000;
    /// Bytes of one message between nodes.
    link_message_bytes: usize = 5 << 20;
    /// Bytes that may wait on a link before relayed frames are skipped to the next key frame.
    link_queue_bytes: usize = 16 << 20;
    /// Bytes of one message between nodes before the other end has proved that it knows the shared key.
    link_message_bytes_before: usize = 4 << 10;
    /// Whole handshake of a link between nodes, milliseconds.
    link_handshake_ms: u64 = 5_000;
    /// The first wait before a lost manager is dialled again, milliseconds; doubles with each failure.
    link_dial_min_ms: u64 = 250;
    /// The longest wait before a lost manager is dialled again, milliseconds. Shorter than the two report intervals
    /// for which a restarted manager waits before it calls a name free, so that no node comes back too late.
    link_dial_max_ms: u64 = 1_500;
    /// An attempt to reach a manager or an origin that did not end by itself is given up after this, milliseconds.
    link_dial_timeout_ms: u64 = 5_000;
    /// A node that does not answer by QUIC within this time is dialled by TCP, milliseconds; so is an older one.
    link_quic_wait_ms: u64 = 1_000;
    /// QUIC connections of other nodes that have not proved the shared key yet; more are refused.
    link_quic_handshakes: usize = 64;
    /// The same, per source address.
    link_quic_handshakes_per_ip: usize = 16;
    /// Groups of pictures or sound that may be on their way to a node at once, over one QUIC link.
    link_quic_streams: u32 = 4_096;
    /// Frames of a group that a newer one has overtaken on a QUIC link are waited for this long, milliseconds, then left out.
    relay_late_ms: u64 = 1_000;
    /// The first wait before a broken pull is tried again, milliseconds; doubles with each failure.
    relay_retry_min_ms: u64 = 100;
    /// The longest wait before a broken pull is tried again, milliseconds.
    relay_retry_max_ms: u64 = 2_000;
    /// A relayed frame's number may be so far ahead of the stream's newest; beyond it is damage, and would silence a track.
    relay_jump_frames: u64 = 1 << 20;
    /// A pull whose last viewer left goes on for this long, milliseconds.
    relay_linger_ms: u64 = 5_000;
    /// A29: names that a node remembers as not found.
    negative_cache_names: usize = 1_000;
    /// Claims and look-ups that a node keeps open, and questions that a manager keeps waiting while it relearns.
    cluster_waiting: usize = 10_000;
    /// L9: a name that changed hands between live publishers does not do so again for this long, milliseconds.
    takeover_ms: u64 = 3_000;
    /// What a session that was given out but has not connected yet counts for, kilobits a second.
    reservation_kbps: u64 = 4_000;
    /// A30: nodes that one manager knows.
    cluster_nodes: usize = 1_000;
    /// A30: streams that one manager knows.
    cluster_streams: usize = 100_000;
    /// A30: reports a second that a manager takes from one node.
    cluster_reports_per_s: u32 = 10;
    /// A node reports its load at this interval, milliseconds.
    report_ms: u64 = 1_000;
    /// A node that has not reported for this long is gone, milliseconds.
    lease_ms: u64 = 3_000;
    /// A grant that nobody used is forgotten after this, milliseconds.
    reservation_ms: u64 = 10_000;
    /// Streams of which a manager remembers why they and their viewers were placed where they are.
    placements_kept: usize = 1_000;
    /// Nodes that a client may ask the manager for at once.
    pair_nodes: usize = 16;
    /// Logins at a manager in one second; more are told to wait.
    logins_per_s: u32 = 5;
    /// A token from a login is good for this long, milliseconds.
    token_ms: u64 = 3_600_000;
    /// Passwords that are being verified at a time, each of which costs a thread some 20 ms and 19 MiB; beyond that, it is said
    /// to try again.
    auth_checks: usize = 32;
    /// Of them, those of one address.
    auth_checks_per_ip: usize = 4;
    /// A right password is remembered, as a code, for this long, milliseconds.
    auth_remember_ms: u64 = 600_000;
    /// Milliseconds for a question to `auth.callback` or the key set at `auth.jwks`, from looking up the name to the whole answer.
    auth_callback_ms: u64 = 3_000;
    /// Questions to `auth.callback` at a time; beyond that, it is said to try again.
    auth_callbacks: usize = 256;
    /// Of them, those about one address.
    auth_callbacks_per_ip: usize = 16;
    /// A yes of `auth.callback` without `expires_s` is remembered for this long, milliseconds.
    auth_callback_allowed_ms: u64 = 10_000;
    /// A no of it without `expires_s` is remembered for this long, milliseconds.
    auth_callback_refused_ms: u64 = 5_000;
    /// Answers of it that are remembered.
    auth_callback_answers: usize = 10_000;
    /// What runs by an answer of `auth.callback` whose `expires_s` are over goes on for this long while it cannot be asked
    /// again, milliseconds.
    auth_callback_grace_ms: u64 = 60_000;
    /// A key set at an address is fetched this often, milliseconds.
    auth_jwks_ms: u64 = 300_000;
    /// For a token whose key is not known it is fetched again, but no more often than this, milliseconds; so it is after a failure.
    auth_jwks_again_ms: u64 = 10_000;
    /// Addresses and authorities of servers that the node asks by HTTP are looked up this often, milliseconds.
    fetch_known_ms: u64 = 30_000;
    /// Names that may be revoked while a node runs.
    auth_revoked: usize = 10_000;
    /// A20: the token in the addresses that a manager gives out is good for this long, milliseconds; who came with it stays.
    auth_pair_ms: u64 = 60_000;
    /// The longest life of a token that is asked of a node, milliseconds.
    auth_token_ms: u64 = 31_536_000_000;
    /// Sessions that ended last of which a node can still say why.
    sessions_kept: usize = 500;
    /// A node whose loop was busy for this many thousandths of each of the last three seconds takes no newcomers.
    admit_busy_permille: u32 = 950;
    /// A prewarmed stream stays on an edge for this long without viewers where nothing else was asked for, milliseconds.
    warm_ms: u64 = 300_000;
    /// How long a claim, locate or pull waits for its answer, milliseconds.
    cluster_answer_ms: u64 = 3_000;
    /// A25: log lines a second with the same reason.
    log_lines_per_s: u32 = 10;
    /// A25: label values of one metric.
    metric_labels: usize = 1_000;
    /// A33: sessions may finish for this long after SIGTERM, milliseconds.
    drain_ms: u64 = 30_000;
}

impl Limits {
    /// The bytes that each stream's ring is sure of.
    pub fn ring_bytes_least(&self) -> u64 {
        self.ring_bytes_min.min(self.ring_bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_documented() {
        assert!(Limits::DOCS.iter().all(|(name, doc)| !name.is_empty() && doc.trim().len() > 10));
    }
}
