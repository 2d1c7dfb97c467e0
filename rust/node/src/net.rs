//! TCP: listening, dialling, and staying connected. TCP_NODELAY always: without it a JIT payment takes ten times as long.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::SocketAddress;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::convert;
use crate::door::{Door, PeerLimits, Turned};
use crate::error::NodeError;
use crate::log::Seldom;
use crate::node::Node;
use crate::sync::lock;

const KIND: &str = "peer";
pub(crate) const META: &str = "meta";
pub(crate) const ADDRESSES: &str = "addresses";
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection in the other direction may take to finish its handshake.
const CROSSED: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// A wallet that is paid while its LSP restarts should not wait longer; many wallets come at different moments.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// A peer as the API shows it.
#[derive(Debug, Serialize)]
pub struct PeerInfo {
    /// Its id.
    pub node_id: ldkjit_core::ids::NodeId,
    /// Where it is, `host:port`.
    pub address: Option<String>,
    /// It dialled us.
    pub inbound: bool,
    /// There is a connection.
    pub connected: bool,
}

struct Kept {
    address: String,
    retry: Duration,
    next: Instant,
}

/// Peers to stay connected to, and those that come by themselves.
pub struct Net {
    kept: Mutex<BTreeMap<PublicKey, Kept>>,
    /// One dial at a time to each peer: of two at once the peer drops one.
    dialling: Mutex<BTreeMap<PublicKey, Weak<tokio::sync::Mutex<()>>>>,
    /// Addresses we listen on.
    pub listening: Mutex<Vec<String>>,
    /// Who may connect.
    pub door: Door,
    born: Instant,
    turned_away: Seldom,
}

impl Net {
    /// The peers kept by an earlier run.
    #[must_use]
    pub fn load(live: &[(String, String, Vec<u8>)], limits: PeerLimits) -> Self {
        let net = Self {
            kept: Mutex::default(),
            dialling: Mutex::default(),
            listening: Mutex::default(),
            door: Door::new(limits),
            born: Instant::now(),
            turned_away: Seldom::default(),
        };
        for (_, key, value) in live.iter().filter(|(kind, _, _)| kind == KIND) {
            if let (Ok(id), Ok(address)) =
                (key.parse::<PublicKey>(), String::from_utf8(value.clone()))
            {
                net.keep(id, address);
            }
        }
        net
    }

    fn dial_lock(&self, peer: &PublicKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut dialling = lock(&self.dialling);
        dialling.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = dialling.get(peer).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        dialling.insert(*peer, Arc::downgrade(&lock));
        lock
    }

    /// The door's clock, which nobody sets back.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends what takes too long.
    pub(crate) fn sweep(&self) {
        self.door.sweep(self.now_ms());
    }

    /// Stay connected to this peer, at this address if no other is known.
    pub fn keep_new(&self, peer: PublicKey, address: String) {
        if !lock(&self.kept).contains_key(&peer) {
            self.keep(peer, address);
        }
    }

    /// Stay connected to this peer.
    pub fn keep(&self, peer: PublicKey, address: String) {
        lock(&self.kept).insert(
            peer,
            Kept {
                address,
                retry: FIRST_RETRY,
                next: Instant::now(),
            },
        );
    }
}

impl Node {
    /// Whether a connection with a finished handshake exists.
    #[must_use]
    pub fn is_connected(&self, peer: &PublicKey) -> bool {
        self.pm.peer_by_node_id(peer).is_some()
    }

    /// Starts listening on every configured address.
    ///
    /// # Errors
    /// `config` when an address cannot be bound.
    pub(crate) async fn listen(self: &Arc<Self>) -> Result<(), NodeError> {
        for address in &self.config.listen {
            let listener = TcpListener::bind(address).await.map_err(|e| {
                NodeError::config(format!("listen: {address} cannot be bound: {e}"))
            })?;
            if let Ok(bound) = listener.local_addr() {
                lock(&self.net.listening).push(bound.to_string());
            }
            self.note_addresses();
            let node = Arc::clone(self);
            self.spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, from)) => node.take_in(stream, from),
                        Err(e) => {
                            // Out of file descriptors, most likely: give back the processor while it lasts.
                            node.parts.log.warn("net", format_args!("accept: {e}"));
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
        Ok(())
    }

    /// Where this node answers, for a copy of its store to ask there whether it runs.
    fn note_addresses(&self) {
        let mut addresses = lock(&self.net.listening).clone();
        addresses.extend(self.config.announce.iter().cloned());
        let value = serde_json::to_vec(&addresses).unwrap_or_default();
        self.parts.journal.put(META, ADDRESSES, value);
    }

    fn take_in(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Ok(stream) = stream.into_std() else {
            return;
        };
        match self
            .net
            .door
            .knock(from, stream.try_clone().ok(), self.net.now_ms())
        {
            Ok(turn) => {
                let connection = lightning_net_tokio::setup_inbound(self.pm.clone(), stream);
                let node = Arc::clone(self);
                self.spawn(async move {
                    connection.await;
                    node.net.door.leave(from, turn);
                });
            }
            Err(why) => self.say_turned_away(why, from),
        }
    }

    fn say_turned_away(&self, why: Turned, who: impl std::fmt::Display) {
        self.net.turned_away.warn(
            &self.parts.log,
            "net",
            format_args!("{who} turned away: {why:?}"),
        );
    }

    /// Somebody sent too much at once; LDK has hung up.
    pub(crate) fn hung_up_on(&self, peer: &PublicKey) {
        self.net.door.note(Turned::Messages);
        self.say_turned_away(Turned::Messages, peer);
    }

    /// Somebody finished a handshake: too many strangers, and the one that came first goes.
    pub(crate) fn meet(&self, peer: &PublicKey) {
        let details = self.pm.peer_by_node_id(peer);
        let Some(details) = details.filter(|d| d.is_inbound_connection) else {
            return;
        };
        let from = match details.socket_address {
            Some(SocketAddress::TcpIpV4 { addr, port }) => SocketAddr::from((addr, port)),
            Some(SocketAddress::TcpIpV6 { addr, port }) => SocketAddr::from((addr, port)),
            _ => return,
        };
        let leaving = self
            .net
            .door
            .enter(from, *peer, |peer| self.has_business(peer));
        for stranger in leaving {
            self.say_turned_away(Turned::Strangers, stranger);
            self.pm.disconnect_by_node_id(stranger);
        }
    }

    /// Channels, orders, or a wish of ours to be connected.
    pub(crate) fn has_business(&self, peer: &PublicKey) -> bool {
        lock(&self.net.kept).contains_key(peer)
            || !self.cm.list_channels_with_counterparty(peer).is_empty()
            || self
                .lsp
                .as_ref()
                .is_some_and(|lsp| lsp.has_orders(&convert::node_id(peer)))
    }

    /// Connects and stays connected, over restarts too. An address that was not needed does not replace a known one.
    ///
    /// # Errors
    /// As [`Node::dial`], or when the store fails.
    pub async fn dial_and_keep(
        &self,
        peer: PublicKey,
        address: &str,
        timeout: Duration,
    ) -> Result<(), NodeError> {
        let known = self.is_connected(&peer) && lock(&self.net.kept).contains_key(&peer);
        self.dial(peer, address, timeout).await?;
        if known {
            return Ok(());
        }
        self.net.keep(peer, address.to_string());
        self.parts
            .journal
            .put(KIND, peer.to_string(), address.as_bytes().to_vec());
        Ok(self.parts.journal.durable().await?)
    }

    /// Connects, and waits for the handshake's end.
    ///
    /// # Errors
    /// `peer` when the address cannot be reached or somebody else answers there.
    pub async fn dial(
        &self,
        peer: PublicKey,
        address: &str,
        timeout: Duration,
    ) -> Result<(), NodeError> {
        if peer == self.cm.get_our_node_id() {
            return Err(NodeError::peer("this is our own node id"));
        }
        if self.is_connected(&peer) {
            return Ok(());
        }
        let timeout = timeout.min(HANDSHAKE);
        let failed =
            |what: String| NodeError::peer(format!("{peer}@{address}: {what}")).retryable();
        let connect = async {
            let turn = self.net.dial_lock(&peer);
            let _turn = turn.lock().await;
            if self.is_connected(&peer) {
                return Ok(());
            }
            let mut presence = self.presence.subscribe();
            let stream = TcpStream::connect(address)
                .await
                .map_err(|e| failed(format!("not reached: {e}")))?;
            stream
                .set_nodelay(true)
                .map_err(|e| failed(e.to_string()))?;
            let stream = stream.into_std().map_err(|e| failed(e.to_string()))?;
            let (ended, mut end) = watch::channel(false);
            let connection = lightning_net_tokio::setup_outbound(self.pm.clone(), peer, stream);
            self.spawn(async move {
                connection.await;
                let _ = ended.send(true);
            });
            loop {
                if self.is_connected(&peer) {
                    return Ok(());
                }
                tokio::select! {
                    _ = presence.changed() => {}
                    _ = end.changed() => {
                        // The peer may have dialled us at the same moment and kept that connection.
                        let other = async {
                            while !self.is_connected(&peer) && presence.changed().await.is_ok() {}
                        };
                        let _ = tokio::time::timeout(CROSSED, other).await;
                        if self.is_connected(&peer) {
                            return Ok(());
                        }
                        return Err(failed("the connection ended before the handshake did".into()));
                    }
                }
            }
        };
        tokio::time::timeout(timeout, connect)
            .await
            .unwrap_or_else(|_| {
                Err(failed(format!(
                    "no answer within {} ms",
                    timeout.as_millis()
                )))
            })
    }

    /// Ends a connection and no longer stays connected.
    pub fn hang_up(&self, peer: &PublicKey) {
        lock(&self.net.kept).remove(peer);
        self.parts.journal.delete(KIND, peer.to_string());
        self.pm.disconnect_by_node_id(*peer);
    }

    /// Dials kept peers that are gone, each at its own growing interval.
    pub(crate) async fn stay_connected(self: Arc<Self>) {
        let mut presence = self.presence.subscribe();
        loop {
            let now = Instant::now();
            let mut due = Vec::new();
            for (peer, kept) in lock(&self.net.kept).iter_mut() {
                if self.is_connected(peer) {
                    kept.retry = FIRST_RETRY;
                    kept.next = now;
                } else if kept.next <= now {
                    due.push((*peer, kept.address.clone()));
                    kept.next = now.checked_add(self.spread(kept.retry, 500)).unwrap_or(now);
                    kept.retry = kept.retry.saturating_mul(2).min(LAST_RETRY);
                }
            }
            for (peer, address) in due {
                let node = Arc::clone(&self);
                self.spawn(async move {
                    if let Err(e) = node.dial(peer, &address, HANDSHAKE).await {
                        node.parts.log.debug("net", format_args!("{e}"));
                    }
                });
            }
            tokio::select! {
                _ = presence.changed() => {}
                () = tokio::time::sleep(FIRST_RETRY) => {}
            }
        }
    }

    /// Connected and kept peers.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut peers: BTreeMap<PublicKey, PeerInfo> = lock(&self.net.kept)
            .iter()
            .map(|(id, kept)| {
                let info = PeerInfo {
                    node_id: convert::node_id(id),
                    address: Some(kept.address.clone()),
                    inbound: false,
                    connected: false,
                };
                (*id, info)
            })
            .collect();
        for peer in self.pm.list_peers() {
            let id = peer.counterparty_node_id;
            let kept = peers.remove(&id).and_then(|p| p.address);
            let info = PeerInfo {
                node_id: convert::node_id(&id),
                address: kept.or_else(|| peer.socket_address.map(|a: SocketAddress| a.to_string())),
                inbound: peer.is_inbound_connection,
                connected: true,
            };
            peers.insert(id, info);
        }
        peers.into_values().collect()
    }
}
