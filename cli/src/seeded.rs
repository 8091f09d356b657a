//! A node of which nothing but its inputs decides what it does: for recording, and for running it again.

use proto_core::io::{Input, Output};
use proto_core::machine::Machine;
use proto_core::node::Node;
use proto_core::node::identity::Identity;
use proto_core::rand::Rng;
use proto_core::recording::Header;
use proto_core::time::{Deadline, Time};
use proto_core::{rtc, tls};
use std::sync::Arc;
use std::time::Instant;

/// A node whose libraries read clocks and randomness from a seed, and whose cryptography replays. It belongs to the
/// thread that made it, which must be fresh.
pub(crate) struct Seeded {
    scope: determinism::os::Scope,
    node: Node,
}

impl Seeded {
    /// The node that a recording's header describes, before it is told anything.
    ///
    /// # Errors
    /// What keeps it from being made, for the operator.
    pub(crate) fn new(header: &Header) -> Result<Seeded, String> {
        let seeds = Rng::new(header.crypto_seed);
        let seed = |label| seeds.fork(label, 0).bytes();
        let scope = determinism::os::Scope::new(seed("os")).map_err(|e| e.to_string())?;
        let node = scope.within(|| {
            let certificate =
                determinism::crypto::certificate(seed("certificate")).map_err(|e| e.to_string())?;
            let dtls = determinism::crypto::dtls_provider().map_err(|e| e.to_string())?;
            let other = determinism::crypto::str0m_provider(dtls);
            let identity =
                rtc::Identity::with_crypto(certificate, determinism::crypto::dimpl_provider(), other);
            let rtc = identity.map_err(|reason| reason.text.into_owned())?;
            let own =
                determinism::crypto::certificate(seed("certificate for TLS")).map_err(|e| e.to_string())?;
            let provider = Arc::new(determinism::crypto::tls_provider());
            let tls = Some(tls::Identity::new(provider, own.certificate, own.private_key));
            let identity = Identity { rtc, tls };
            Node::new(header.config.clone(), header.node_seed, Instant::now(), identity)
                .map_err(|reason| reason.text.into_owned())
        })?;
        Ok(Seeded { scope, node })
    }

    /// The node's name in the cluster.
    pub(crate) fn name(&self) -> String {
        self.node.id().to_string()
    }
}

impl Machine for Seeded {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        let node = &mut self.node;
        self.scope.within(|| node.handle(input, now));
    }

    fn poll(&mut self) -> Option<Output> {
        let node = &mut self.node;
        self.scope.within(|| node.poll())
    }

    fn deadline(&self) -> Option<Deadline> {
        self.scope.within(|| self.node.deadline())
    }
}
