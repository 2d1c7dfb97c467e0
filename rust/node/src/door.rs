//! Who may connect: strangers cost nothing to be, so what they use up is bounded, and peers with business go before them.
//!
//! A stranger is a peer that dialled us and has neither channel nor order. When too many are here the one that came first
//! goes: whoever means business has bought within seconds, and cannot be kept out by those who only sit there. LDK's own
//! limit (250 in all, the newest refused) is not used: `inbound.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;

use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use crate::sync::lock;

/// Addresses of peers with business that are remembered.
const MAX_FRIENDLY: usize = 10_000;

/// What strangers may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerLimits {
    /// Strangers connected at once: half of the 1,024 files that a process may open on many systems.
    pub max_strangers: u32,
    /// Of them, from one IP address: a mobile network puts many wallets behind one.
    pub max_strangers_per_address: u32,
    /// New connections per second, of which one address has a quarter: each costs three multiplications on the curve.
    pub max_connects_per_second: u32,
    /// Connections whose handshake is not over; with one more, the one that came first goes.
    pub max_handshakes: u32,
    /// How long a handshake may take, ms.
    pub handshake_ms: u64,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            max_strangers: 500,
            max_strangers_per_address: 100,
            max_connects_per_second: 100,
            max_handshakes: 100,
            handshake_ms: 5_000,
        }
    }
}

/// Why a connection was refused or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Turned {
    /// Too many connections this second.
    Rate,
    /// Too many from its address, in all or this second.
    Address,
    /// Too many handshakes at once, and this one came first.
    Handshakes,
    /// Its handshake took too long.
    Slow,
    /// Too many strangers, and this one came first.
    Strangers,
    /// It sent more messages than could be answered.
    Messages,
}

struct Guest {
    /// Its place in the order of coming.
    turn: u64,
    since_ms: u64,
    /// A second handle to end it with while LDK has no name for it.
    handshaking: Option<TcpStream>,
    /// Who it is, once that is known.
    peer: Option<PublicKey>,
    /// It has business: it counts for nothing here.
    friend: bool,
}

#[derive(Default)]
struct State {
    turns: u64,
    guests: HashMap<SocketAddr, Guest>,
    /// Guests whose handshake is not over, and strangers, first come first.
    handshakes: BTreeMap<u64, SocketAddr>,
    strangers: BTreeMap<u64, SocketAddr>,
    /// Both of those by address.
    addresses: HashMap<IpAddr, u32>,
    second: u64,
    this_second: u32,
    this_second_by: HashMap<IpAddr, u32>,
    /// Where peers with business came from: these need not share what is left of a second.
    friendly: HashSet<IpAddr>,
    turned: BTreeMap<Turned, u64>,
}

/// Counts who comes in. No clock: every call says what time it is.
pub struct Door {
    limits: PeerLimits,
    state: Mutex<State>,
}

/// What a program of this machine dials from, be it Tor or a proxy: it says nothing of who is behind.
fn says_nothing(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// One customer of an internet provider: an IPv4 address, or 64 bits of IPv6.
fn whose(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
        }
        ip => ip,
    }
}

impl State {
    fn turn_away(&mut self, why: Turned) {
        let n = self.turned.entry(why).or_insert(0);
        *n = n.saturating_add(1);
    }

    fn count(&mut self, address: SocketAddr) {
        let n = self.addresses.entry(whose(address)).or_insert(0);
        *n = n.saturating_add(1);
    }

    fn uncount(&mut self, address: SocketAddr) {
        let ip = whose(address);
        if let Some(n) = self.addresses.get_mut(&ip) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.addresses.remove(&ip);
            }
        }
    }

    fn forget(&mut self, address: SocketAddr) {
        if let Some(guest) = self.guests.remove(&address) {
            self.handshakes.remove(&guest.turn);
            self.strangers.remove(&guest.turn);
            if !guest.friend {
                self.uncount(address);
            }
        }
    }

    fn end_handshake(&mut self, address: SocketAddr, why: Turned) {
        if let Some(guest) = self.guests.get_mut(&address) {
            self.handshakes.remove(&guest.turn);
            if let Some(stream) = guest.handshaking.take() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            self.turn_away(why);
        }
    }

    fn befriend(&mut self, address: SocketAddr) {
        let Some(guest) = self.guests.get_mut(&address) else {
            return;
        };
        self.strangers.remove(&guest.turn);
        if !std::mem::replace(&mut guest.friend, true) {
            self.uncount(address);
        }
        let ip = whose(address);
        if !says_nothing(ip) {
            if self.friendly.len() >= MAX_FRIENDLY {
                self.friendly.clear();
            }
            self.friendly.insert(ip);
        }
    }
}

impl Door {
    /// A door, nobody in.
    #[must_use]
    pub fn new(limits: PeerLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
        }
    }

    /// Somebody dials: its turn. `handle` ends the connection from another side than LDK's.
    ///
    /// # Errors
    /// Why not.
    pub fn knock(
        &self,
        address: SocketAddr,
        handle: Option<TcpStream>,
        now_ms: u64,
    ) -> Result<u64, Turned> {
        let mut state = lock(&self.state);
        if let Err(why) = self.judge(&mut state, address, now_ms) {
            state.turn_away(why);
            return Err(why);
        }
        let over = state.handshakes.len() >= self.limits.max_handshakes as usize;
        if let Some(first) = over.then(|| state.handshakes.values().next().copied()) {
            first
                .into_iter()
                .for_each(|first| state.end_handshake(first, Turned::Handshakes));
        }
        state.turns = state.turns.saturating_add(1);
        let turn = state.turns;
        let guest = Guest {
            turn,
            since_ms: now_ms,
            handshaking: handle,
            peer: None,
            friend: false,
        };
        // One whose end we were not told of yet may have had the same address.
        state.forget(address);
        state.guests.insert(address, guest);
        state.count(address);
        state.handshakes.insert(turn, address);
        Ok(turn)
    }

    fn judge(&self, state: &mut State, address: SocketAddr, now_ms: u64) -> Result<(), Turned> {
        let second = now_ms / 1_000;
        if state.second != second {
            state.second = second;
            state.this_second = 0;
            state.this_second_by.clear();
        }
        let ip = whose(address);
        let per_second = self.limits.max_connects_per_second;
        if !says_nothing(ip) {
            let here = state.addresses.get(&ip).copied().unwrap_or(0);
            let now = state.this_second_by.get(&ip).copied().unwrap_or(0);
            if here >= self.limits.max_strangers_per_address || now >= per_second.div_ceil(4) {
                return Err(Turned::Address);
            }
        }
        if state.this_second >= per_second && !state.friendly.contains(&ip) {
            return Err(Turned::Rate);
        }
        state.this_second = state.this_second.saturating_add(1);
        let now = state.this_second_by.entry(ip).or_insert(0);
        *now = now.saturating_add(1);
        Ok(())
    }

    /// A handshake is over. Answers who has to go for it.
    pub fn enter(
        &self,
        address: SocketAddr,
        peer: PublicKey,
        has_business: impl Fn(&PublicKey) -> bool,
    ) -> Vec<PublicKey> {
        let mut state = lock(&self.state);
        let Some(guest) = state.guests.get_mut(&address) else {
            return Vec::new();
        };
        let turn = guest.turn;
        guest.handshaking = None;
        guest.peer = Some(peer);
        state.handshakes.remove(&turn);
        if has_business(&peer) {
            state.befriend(address);
        } else {
            state.strangers.insert(turn, address);
        }
        let mut leaving = Vec::new();
        while state.strangers.len() > self.limits.max_strangers as usize {
            let Some((_, first)) = state.strangers.pop_first() else {
                break;
            };
            match state.guests.get(&first).and_then(|guest| guest.peer) {
                Some(peer) if has_business(&peer) => state.befriend(first),
                Some(peer) => {
                    state.turn_away(Turned::Strangers);
                    leaving.push(peer);
                }
                None => {}
            }
        }
        leaving
    }

    /// A connection is over.
    pub fn leave(&self, address: SocketAddr, turn: u64) {
        let mut state = lock(&self.state);
        if state.guests.get(&address).is_some_and(|g| g.turn == turn) {
            state.forget(address);
        }
    }

    /// Ends handshakes that take too long.
    pub fn sweep(&self, now_ms: u64) {
        let mut state = lock(&self.state);
        while let Some(first) = state.handshakes.values().next().copied() {
            let since = state.guests.get(&first).map_or(0, |guest| guest.since_ms);
            if now_ms < since.saturating_add(self.limits.handshake_ms) {
                break;
            }
            state.end_handshake(first, Turned::Slow);
        }
    }

    /// Business comes and goes: sorts strangers from others anew.
    pub fn look_again(&self, has_business: impl Fn(&PublicKey) -> bool) {
        let mut state = lock(&self.state);
        let all: Vec<_> = state
            .guests
            .iter()
            .filter_map(|(address, guest)| guest.peer.map(|peer| (*address, peer, guest.friend)))
            .collect();
        for (address, peer, was_friend) in all {
            let is_friend = has_business(&peer);
            if is_friend {
                state.befriend(address);
            } else if was_friend {
                state.count(address);
                let guest = state.guests.get_mut(&address).map(|guest| {
                    guest.friend = false;
                    guest.turn
                });
                if let Some(turn) = guest {
                    state.strangers.insert(turn, address);
                }
            }
        }
    }

    /// One was hung up on for another reason than those here.
    pub fn note(&self, why: Turned) {
        lock(&self.state).turn_away(why);
    }

    /// How many were turned away, by reason.
    #[must_use]
    pub fn turned(&self) -> BTreeMap<Turned, u64> {
        lock(&self.state).turned.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )]
    use super::*;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    fn peer(n: u32) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let key = SecretKey::from_slice(&bytes).unwrap();
        PublicKey::from_secret_key(&Secp256k1::new(), &key)
    }

    /// The n-th address of 10.0.0.0/8, always from the same port.
    fn at(n: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)), 1)
    }

    fn door(change: impl FnOnce(&mut PeerLimits)) -> Door {
        let mut limits = PeerLimits::default();
        change(&mut limits);
        Door::new(limits)
    }

    fn nobody(_: &PublicKey) -> bool {
        false
    }

    #[test]
    fn the_first_stranger_goes_and_never_one_with_business() {
        let door = door(|l| l.max_strangers = 3);
        let buyer = |p: &PublicKey| *p == peer(1);
        for n in 0..5 {
            door.knock(at(n), None, u64::from(n)).unwrap();
        }
        assert_eq!(door.enter(at(0), peer(0), buyer), []);
        assert_eq!(door.enter(at(1), peer(1), nobody), [], "a stranger still");
        assert_eq!(door.enter(at(2), peer(2), buyer), []);
        assert_eq!(door.enter(at(3), peer(3), buyer), [peer(0)]);
        // The next in turn has bought meanwhile.
        assert_eq!(door.enter(at(4), peer(4), buyer), []);
        door.knock(at(5), None, 5).unwrap();
        assert_eq!(door.enter(at(5), peer(5), buyer), [peer(2)]);
        assert_eq!(door.turned(), [(Turned::Strangers, 2)].into());
        // Its business is over: it waits its turn like everybody.
        door.look_again(nobody);
        door.knock(at(6), None, 6).unwrap();
        assert_eq!(door.enter(at(6), peer(6), nobody), [peer(1), peer(3)]);
    }

    #[test]
    fn a_second_is_shared() {
        let door = door(|l| l.max_connects_per_second = 8);
        let knock = |n, port, ms| {
            let address = SocketAddr::new(at(n).ip(), port);
            door.knock(address, None, ms).map(|_| ())
        };
        assert_eq!(knock(0, 1, 0), Ok(()));
        assert_eq!(knock(0, 2, 1), Ok(()));
        assert_eq!(knock(0, 3, 2), Err(Turned::Address), "its quarter is used");
        for n in 1..7 {
            assert_eq!(knock(n, 1, 999), Ok(()));
        }
        assert_eq!(knock(9, 1, 999), Err(Turned::Rate));
        // An address that a peer with business came from goes before them, and has no more than its quarter.
        door.enter(at(1), peer(1), |_| true);
        assert_eq!(knock(1, 2, 999), Ok(()));
        assert_eq!(knock(1, 3, 999), Err(Turned::Address));
        assert_eq!(knock(9, 1, 1_000), Ok(()));
        assert_eq!(
            door.turned(),
            [(Turned::Rate, 1), (Turned::Address, 2)].into()
        );
    }

    #[test]
    fn an_address_has_its_share() {
        let door = door(|l| l.max_strangers_per_address = 2);
        let from = |port| SocketAddr::new(at(7).ip(), port);
        let knock = |port| door.knock(from(port), None, u64::from(port) * 1_000);
        let first = knock(1).unwrap();
        door.enter(from(1), peer(1), nobody);
        knock(2).unwrap();
        door.enter(from(2), peer(2), nobody);
        assert_eq!(knock(3), Err(Turned::Address));
        // Who has business counts no more.
        door.look_again(|p| *p == peer(1));
        let third = knock(3).unwrap();
        assert_eq!(knock(4), Err(Turned::Address));
        door.leave(from(3), third);
        knock(4).unwrap();
        door.leave(from(1), first);
        assert_eq!(knock(5), Err(Turned::Address), "it counted for nothing");
        // The end of one that was there before says nothing of the one that is there now.
        door.leave(from(4), third);
        assert_eq!(knock(5), Err(Turned::Address));
        // One customer has 64 bits of IPv6.
        let v6 = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        assert_eq!(whose(v6("2001:db8::1")), whose(v6("2001:db8::ffff:1")));
        assert_ne!(whose(v6("2001:db8::1")), whose(v6("2001:db8:0:1::1")));
        assert_eq!(whose(v6("::ffff:10.0.0.1")), at(1).ip());
        // What this machine's own programs dial from has no share.
        for n in 0..50 {
            let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), n);
            door.knock(local, None, 20_000).unwrap();
        }
    }

    #[test]
    fn handshakes_end() {
        let door = door(|l| {
            l.max_handshakes = 2;
            l.handshake_ms = 1_000;
        });
        let turns = [0, 1, 2].map(|n| door.knock(at(n), None, 100 * u64::from(n)).unwrap());
        assert_eq!(door.turned(), [(Turned::Handshakes, 1)].into());
        door.sweep(1_099);
        assert_eq!(door.turned().get(&Turned::Slow), None);
        door.enter(at(2), peer(2), nobody);
        door.sweep(1_200);
        assert_eq!(door.turned().get(&Turned::Slow), Some(&1));
        for (n, turn) in (0..).zip(turns) {
            door.leave(at(n), turn);
        }
        let state = lock(&door.state);
        assert!(state.guests.is_empty() && state.addresses.is_empty());
        assert!(state.handshakes.is_empty() && state.strangers.is_empty());
    }
}
