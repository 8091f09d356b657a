//! WebRTC: sessions on str0m, one UDP port, our own demux, DTLS provider and egress.
