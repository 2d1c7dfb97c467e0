//! One mnemonic, and every key that comes from it.

use crate::convert::spendable;
use crate::error::NodeError;
use crate::files::{create_new, draft_of, parent, publish};
use crate::log::Log;
use bip39::Mnemonic;
use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, Signature};
use bitcoin::secp256k1::{schnorr, All, PublicKey, Scalar, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{absolute::LockTime, Network, NetworkKind, OutPoint, ScriptBuf, Transaction, TxOut};
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::ln::msgs::UnsignedGossipMessage;
use lightning::ln::script::ShutdownScript;
use lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning::sign::{
    EntropySource, InMemorySigner, KeysManager, NodeSigner, OutputSpender, PeerStorageKey,
    ReceiveAuthKey, Recipient, SignerProvider, SpendableOutputDescriptor,
};
use lightning_invoice::RawBolt11Invoice;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file in the data directory that holds the words.
pub const SEED_FILE: &str = "seed";

/// The words from which everything is derived. Not printable on purpose.
pub struct Seed {
    mnemonic: Mnemonic,
}

impl Seed {
    /// Twelve new words from the system's randomness.
    pub fn generate() -> Result<Self, NodeError> {
        let mut entropy = [0u8; 16];
        getrandom::fill(&mut entropy).map_err(|error| {
            NodeError::internal(format!("the system gives no randomness: {error}"))
        })?;
        let mnemonic = Mnemonic::from_entropy(&entropy)
            .map_err(|error| NodeError::internal(error.to_string()))?;
        Ok(Self { mnemonic })
    }

    /// Given words, in English. The error does not repeat them.
    pub fn parse(words: &str) -> Result<Self, NodeError> {
        let words = words
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_lowercase();
        let mnemonic =
            Mnemonic::parse_in_normalized(bip39::Language::English, &words).map_err(|error| {
                NodeError::config(format!(
                    "the mnemonic is not valid: {}",
                    without_words(&error)
                ))
            })?;
        Ok(Self { mnemonic })
    }

    /// The words of `data_dir`; created (from `given`, or new) if there are none. Words that are there are
    /// never replaced, and other words given are an error.
    pub fn load_or_create(
        data_dir: &Path,
        given: Option<&str>,
        log: &Log,
    ) -> Result<Self, NodeError> {
        let path = data_dir.join(SEED_FILE);
        let given = given.map(Self::parse).transpose()?;
        if let Some(found) = Self::load(&path, log)? {
            return match given {
                Some(given) if given.mnemonic != found.mnemonic => Err(NodeError::config(
                    "the data directory belongs to another mnemonic",
                )),
                _ => Ok(found),
            };
        }
        let seed = match given {
            Some(given) => given,
            None => Self::generate()?,
        };
        seed.create(&path)?;
        Ok(seed)
    }

    /// Writes the words into a new file.
    pub(crate) fn create(&self, path: &Path) -> Result<(), NodeError> {
        create(path, format!("{}\n", self.mnemonic).as_bytes())
            .map_err(|error| NodeError::config(format!("the seed file cannot be written: {error}")))
    }

    /// The words of `data_dir`, and nothing there is changed.
    pub fn read(data_dir: &Path) -> Result<Self, NodeError> {
        let text = fs::read_to_string(data_dir.join(SEED_FILE))
            .map_err(|error| NodeError::config(format!("the seed file cannot be read: {error}")))?;
        Self::parse(&text)
            .map_err(|error| NodeError::config(format!("the seed file: {}", error.message)))
    }

    fn load(path: &Path, log: &Log) -> Result<Option<Self>, NodeError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(NodeError::config(format!(
                    "the seed file cannot be read: {error}"
                )))
            }
        };
        keep_private(path, log)?;
        Self::parse(&text)
            .map(Some)
            .map_err(|error| NodeError::config(format!("the seed file: {}", error.message)))
    }

    /// The words, for a backup.
    pub fn words(&self) -> String {
        self.mnemonic.to_string()
    }

    fn master(&self, network: Network) -> Result<Xpriv, NodeError> {
        Xpriv::new_master(network, &self.mnemonic.to_seed_normalized(""))
            .map_err(|error| NodeError::internal(format!("the seed gives no key: {error}")))
    }

    /// LDK's seed: the private key at m/535'/0', so that no key of the on-chain wallet tells anything of it.
    pub fn ldk_seed(&self) -> Result<[u8; 32], NodeError> {
        let path = [
            ChildNumber::Hardened { index: 535 },
            ChildNumber::Hardened { index: 0 },
        ];
        let key = self
            .master(Network::Bitcoin)?
            .derive_priv(&Secp256k1::new(), &path);
        key.map(|key| key.private_key.secret_bytes())
            .map_err(|error| NodeError::internal(format!("the seed gives no key: {error}")))
    }

    /// The public key of the node that these words make.
    pub fn node_id(&self) -> Result<PublicKey, NodeError> {
        let keys = KeysManager::new(&self.ldk_seed()?, 0, 0, true);
        let secret = keys.get_node_secret_key();
        Ok(PublicKey::from_secret_key(&Secp256k1::new(), &secret))
    }

    /// The on-chain wallet's account, m/84'/coin'/0': BIP 84. Not BIP 86: a shutdown script of version 0 is
    /// accepted by every peer, one of version 1 only by those that signal it.
    pub fn account(&self, network: Network) -> Result<Account, NodeError> {
        let coin = u32::from(!matches!(NetworkKind::from(network), NetworkKind::Main));
        let path = [84, coin, 0].map(|index| ChildNumber::Hardened { index });
        let secp = Secp256k1::new();
        let master = self.master(network)?;
        let key = master
            .derive_priv(&secp, &path)
            .map_err(|error| NodeError::internal(format!("the seed gives no key: {error}")))?;
        let origin = format!(
            "[{}/84'/{coin}'/0']{}",
            master.fingerprint(&secp),
            Xpub::from_priv(&secp, &key)
        );
        Ok(Account {
            key,
            secp,
            external: format!("wpkh({origin}/0/*)"),
            internal: format!("wpkh({origin}/1/*)"),
        })
    }
}

/// The keys of the on-chain wallet.
pub struct Account {
    key: Xpriv,
    /// Made once: a new one is blinded, which costs more than a signature.
    secp: Secp256k1<All>,
    /// The public descriptor of addresses.
    pub external: String,
    /// The public descriptor of change addresses.
    pub internal: String,
}

impl Account {
    /// What these keys sign with.
    pub fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// The private key of an address.
    pub fn key(&self, change: bool, index: u32) -> Result<SecretKey, NodeError> {
        let path = [u32::from(change), index].map(|index| ChildNumber::Normal { index });
        let key = self.key.derive_priv(&self.secp, &path);
        key.map(|key| key.private_key)
            .map_err(|error| NodeError::internal(format!("no key {index}: {error}")))
    }
}

/// `bip39`'s messages name the position of a wrong word, one also the word: keep that one short.
fn without_words(error: &bip39::Error) -> String {
    match error {
        bip39::Error::UnknownWord(at) => {
            format!("word {} is not in the list", at.saturating_add(1))
        }
        other => other.to_string(),
    }
}

/// Creates a file that only its owner can read, whole or not at all, and never over another.
fn create(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(parent(path))?;
    let draft = draft_of(path);
    let mut file = create_new(&draft)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    match written {
        Ok(()) => publish(&draft, path),
        Err(error) => {
            let _ = fs::remove_file(&draft);
            Err(error)
        }
    }
}

#[cfg(unix)]
fn keep_private(path: &Path, log: &Log) -> Result<(), NodeError> {
    use std::os::unix::fs::PermissionsExt;
    let failed =
        |error: std::io::Error| NodeError::config(format!("the seed file's permissions: {error}"));
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        log.warn(
            "ldkjit::keys",
            format_args!(
                "the seed file could be read by others (mode {:o}): mended",
                mode & 0o777
            ),
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn keep_private(_: &Path, _: &Log) -> Result<(), NodeError> {
    Ok(())
}

/// What LDK needs of the on-chain wallet.
pub trait Addresses: Send + Sync {
    /// The script of a new address.
    fn next_script(&self) -> Option<ScriptBuf>;
    /// Whether the transaction that made this output has left the chain.
    fn is_gone(&self, at: &OutPoint) -> bool;
}

/// LDK's keys, as LDK derives them; only what is paid out goes to the on-chain wallet.
pub struct Keys {
    inner: KeysManager,
    addresses: Arc<dyn Addresses>,
}

impl Keys {
    /// The keys of `seed`.
    pub fn new(seed: &Seed, addresses: Arc<dyn Addresses>) -> Result<Self, NodeError> {
        // Must never repeat with one seed: LDK derives its randomness and channel keys from it.
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let inner = KeysManager::new(
            &seed.ldk_seed()?,
            started.as_secs(),
            started.subsec_nanos(),
            true,
        );
        Ok(Self { inner, addresses })
    }

    /// Whether a reorganisation took what closed a channel, and this output with it.
    pub(crate) fn has_lost(&self, output: &SpendableOutputDescriptor) -> bool {
        self.addresses.is_gone(&spendable(output))
    }

    /// This node's public key.
    pub fn node_id(&self) -> PublicKey {
        PublicKey::from_secret_key(&Secp256k1::new(), &self.inner.get_node_secret_key())
    }

    /// LDK's own keys, for what it offers beyond the traits.
    pub fn manager(&self) -> &KeysManager {
        &self.inner
    }

    /// A secret of this node for `purpose`, the same after every start.
    pub fn derived_secret(&self, purpose: &str) -> [u8; 32] {
        use bitcoin::hashes::{sha256, Hash, HashEngine, Hmac, HmacEngine};
        let mut engine =
            HmacEngine::<sha256::Hash>::new(&self.inner.get_node_secret_key().secret_bytes());
        engine.input(b"ldkjit/");
        engine.input(purpose.as_bytes());
        Hmac::from_engine(engine).to_byte_array()
    }
}

impl EntropySource for Keys {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        self.inner.get_secure_random_bytes()
    }
}

impl NodeSigner for Keys {
    fn get_expanded_key(&self) -> ExpandedKey {
        self.inner.get_expanded_key()
    }
    fn get_peer_storage_key(&self) -> PeerStorageKey {
        self.inner.get_peer_storage_key()
    }
    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        self.inner.get_receive_auth_key()
    }
    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        self.inner.get_node_id(recipient)
    }
    fn ecdh(
        &self,
        recipient: Recipient,
        other: &PublicKey,
        tweak: Option<&Scalar>,
    ) -> Result<SharedSecret, ()> {
        self.inner.ecdh(recipient, other, tweak)
    }
    fn sign_invoice(
        &self,
        invoice: &RawBolt11Invoice,
        recipient: Recipient,
    ) -> Result<RecoverableSignature, ()> {
        self.inner.sign_invoice(invoice, recipient)
    }
    fn sign_bolt12_invoice(
        &self,
        invoice: &UnsignedBolt12Invoice,
    ) -> Result<schnorr::Signature, ()> {
        self.inner.sign_bolt12_invoice(invoice)
    }
    fn sign_gossip_message(&self, message: UnsignedGossipMessage<'_>) -> Result<Signature, ()> {
        self.inner.sign_gossip_message(message)
    }
    fn sign_message(&self, message: &[u8]) -> Result<String, ()> {
        self.inner.sign_message(message)
    }
}

impl OutputSpender for Keys {
    /// LDK never lets go of an output that it has begun to sweep, and sweeps all in one transaction: one that a reorganisation
    /// took would keep back all others for ever. A transaction of nothing is not sent, like one of less than it costs.
    fn spend_spendable_outputs(
        &self,
        descriptors: &[&SpendableOutputDescriptor],
        outputs: Vec<TxOut>,
        change: ScriptBuf,
        feerate: u32,
        locktime: Option<LockTime>,
        secp: &Secp256k1<All>,
    ) -> Result<Transaction, ()> {
        let there: Vec<_> = descriptors
            .iter()
            .copied()
            .filter(|output| !self.has_lost(output))
            .collect();
        if there.is_empty() {
            return Ok(Transaction {
                version: Version::TWO,
                lock_time: locktime.unwrap_or(LockTime::ZERO),
                input: Vec::new(),
                output: Vec::new(),
            });
        }
        self.inner
            .spend_spendable_outputs(&there, outputs, change, feerate, locktime, secp)
    }
}

impl SignerProvider for Keys {
    type EcdsaSigner = InMemorySigner;

    fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32] {
        self.inner
            .generate_channel_keys_id(inbound, user_channel_id)
    }
    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> InMemorySigner {
        self.inner.derive_channel_signer(channel_keys_id)
    }
    fn get_destination_script(&self, _: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.addresses.next_script().ok_or(())
    }
    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        ShutdownScript::try_from(self.addresses.next_script().ok_or(())?).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::testing::TempDir;

    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    struct Fixed;
    impl Addresses for Fixed {
        fn next_script(&self) -> Option<ScriptBuf> {
            ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").ok()
        }
        fn is_gone(&self, _: &OutPoint) -> bool {
            false
        }
    }

    #[test]
    fn created_once_and_kept() {
        let dir = TempDir::new();
        let log = Log::silent();
        let first = Seed::load_or_create(dir.path(), None, &log).unwrap();
        assert_eq!(first.words().split(' ').count(), 12);
        let again = Seed::load_or_create(dir.path(), Some(&first.words()), &log).unwrap();
        assert_eq!(again.words(), first.words());
        let other = Seed::load_or_create(dir.path(), Some(WORDS), &log);
        assert_eq!(other.err().map(|error| error.code), Some("config"));
        assert!(create(&dir.path().join(SEED_FILE), b"x").is_err());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no draft is left"
        );
        assert_eq!(
            Seed::load_or_create(dir.path(), None, &log)
                .unwrap()
                .words(),
            first.words()
        );
    }

    #[cfg(unix)]
    #[test]
    fn private_and_mended() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let path = dir.path().join(SEED_FILE);
        Seed::load_or_create(dir.path(), Some(WORDS), &Log::silent()).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Seed::load_or_create(dir.path(), None, &Log::silent()).unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn words_are_checked_and_never_repeated() {
        let error = Seed::parse("abandon secretword abandon").err().unwrap();
        assert!(!error.message.contains("secretword"), "{}", error.message);
        let wrong = WORDS.replace("about", "zebra");
        assert!(Seed::parse(&wrong).is_err());
        Seed::parse(&format!("  {}\n", WORDS.to_uppercase())).unwrap();
    }

    #[test]
    fn derivation_is_fixed() {
        let seed = Seed::parse(WORDS).unwrap();
        let keys = Keys::new(&seed, Arc::new(Fixed)).unwrap();
        let again = Keys::new(&seed, Arc::new(Fixed)).unwrap();
        assert_eq!(keys.node_id(), again.node_id());
        assert_eq!(
            keys.derived_secret("promise"),
            again.derived_secret("promise")
        );
        assert_ne!(keys.derived_secret("promise"), keys.derived_secret("other"));
        assert_ne!(
            keys.get_secure_random_bytes(),
            again.get_secure_random_bytes()
        );
        assert_eq!(
            keys.get_shutdown_scriptpubkey().unwrap().into_inner(),
            Fixed.next_script().unwrap()
        );
        // The first address of BIP 84's own test vectors.
        let account = seed.account(Network::Bitcoin).unwrap();
        let public = account.key(false, 0).unwrap().public_key(&Secp256k1::new());
        assert_eq!(
            public.to_string(),
            "0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c"
        );
        assert!(account
            .external
            .starts_with("wpkh([73c5da0a/84'/0'/0']xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVF"));
        assert!(seed
            .account(Network::Regtest)
            .unwrap()
            .internal
            .contains("/84'/1'/0']tpub"));
    }
}
