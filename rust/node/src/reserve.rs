//! stub
use std::sync::Arc; use crate::ldk::*;
pub fn anchor_reserve_sat(_: &Arc<ChannelManager>, _: &Arc<ChainMonitor>) -> u64 { 0 }
