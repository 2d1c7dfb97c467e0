//! stub
use std::sync::Arc; use crate::chain::bitcoind::Bitcoind; use crate::log::Log; use crate::error::NodeError; use bitcoin::{Transaction,Txid};
pub struct Broadcaster; impl lightning::chain::chaininterface::BroadcasterInterface for Broadcaster { fn broadcast_transactions(&self, _: &[&Transaction]) {} }
impl Broadcaster { pub fn start(_: &Arc<Bitcoind>, _: &tokio::runtime::Handle, _: &Arc<Log>) -> Arc<Self> { Arc::new(Self) } pub fn stop(&self) {} pub fn on_block(&self, _: u32) {} pub async fn send_now(&self, _: &Transaction) -> Result<Txid, NodeError> { Err(NodeError::internal("x")) } }
