//! stub
use std::sync::Arc; use crate::error::NodeError; use bitcoin::*; use lightning::chain::*; use crate::keys::*; use crate::commit::Boot; use crate::journal::Journal; use crate::log::Log; use crate::broadcast::Broadcaster;
use lightning::util::async_poll::AsyncResult; use lightning::events::bump_transaction::{WalletSource, Utxo}; use lightning::sign::ChangeDestinationSource;
pub struct Wallet;
impl Addresses for Wallet { fn next_script(&self) -> Option<ScriptBuf> { None } }
impl Listen for Wallet { fn filtered_block_connected(&self, _: &block::Header, _: &lightning::chain::transaction::TransactionData, _: u32) {} fn blocks_disconnected(&self, _: BestBlock) {} }
impl WalletSource for Wallet { fn list_confirmed_utxos<'a>(&'a self) -> AsyncResult<'a, Vec<Utxo>, ()> { Box::pin(async{Err(())}) } fn get_change_script<'a>(&'a self) -> AsyncResult<'a, ScriptBuf, ()> { Box::pin(async{Err(())}) } fn sign_psbt<'a>(&'a self, _: Psbt) -> AsyncResult<'a, Transaction, ()> { Box::pin(async{Err(())}) } }
impl ChangeDestinationSource for Wallet { fn get_change_destination_script<'a>(&'a self) -> AsyncResult<'a, ScriptBuf, ()> { Box::pin(async{Err(())}) } }
impl Wallet {
 pub fn load(_: &Seed, _: Network, _: &Boot, _: Arc<Journal>, _: BestBlock, _: &Arc<Log>) -> Result<Self, NodeError> { Ok(Self) }
 pub fn attach(&self, _: &Arc<Broadcaster>) {}
 pub fn best_block(&self) -> BestBlock { BestBlock::from_network(Network::Regtest) }
 pub fn new_address(&self) -> Result<Address, NodeError> { Err(NodeError::internal("x")) }
 pub fn balances(&self, _: u64) -> serde_json::Value { serde_json::json!({}) }
 pub fn send(&self, _: &str, _: Option<u64>, _: u32, _: u64) -> Result<Transaction, NodeError> { Err(NodeError::internal("x")) }
 pub fn select_and_lock(&self, _: u128, _: u64, _: u32, _: u64) -> Result<(), NodeError> { Ok(()) }
 pub fn fund_locked(&self, _: u128, _: ScriptBuf, _: u64) -> Result<Transaction, NodeError> { Err(NodeError::internal("x")) }
 pub fn unlock(&self, _: u128) {}
 pub fn fee_of(&self, _: &Transaction) -> u64 { 0 }
 pub fn fundable_sat(&self, _: u64) -> u64 { 0 }
 #[cfg(feature="faults")] pub fn replace_output(&self, _: &Transaction, _: usize, _: ScriptBuf, _: Amount) -> Result<(Transaction, u16), NodeError> { Err(NodeError::internal("x")) }
}
