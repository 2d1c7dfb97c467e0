//! Headers that were asked for once: at a start each channel's monitor comes from a block of its own, and LDK would ask for
//! every header since then again for each of them.

use std::collections::HashMap;
use std::sync::Mutex;

use bitcoin::BlockHash;
use lightning_block_sync::{AsyncBlockSourceResult, BlockData, BlockHeaderData, BlockSource};

use crate::sync::lock;

/// A source of blocks that remembers headers, for as long as a catching up takes.
pub struct Headers<'a, B> {
    source: &'a B,
    known: Mutex<HashMap<BlockHash, BlockHeaderData>>,
}

impl<'a, B> Headers<'a, B> {
    /// Without any.
    pub fn of(source: &'a B) -> Self {
        Self {
            source,
            known: Mutex::default(),
        }
    }
}

impl<B: BlockSource> BlockSource for Headers<'_, B> {
    fn get_header<'a>(
        &'a self,
        hash: &'a BlockHash,
        height: Option<u32>,
    ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
        Box::pin(async move {
            let known = lock(&self.known).get(hash).copied();
            if let Some(header) = known {
                return Ok(header);
            }
            let header = self.source.get_header(hash, height).await?;
            lock(&self.known).insert(*hash, header);
            Ok(header)
        })
    }

    fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
        self.source.get_block(hash)
    }

    fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
        self.source.get_best_block()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )]
    use super::*;

    use std::sync::atomic::{AtomicUsize, Ordering};

    use bitcoin::block::Header;
    use bitcoin::constants::genesis_block;
    use bitcoin::{Block, Network};
    use lightning::chain::{BestBlock, Listen};
    use lightning_block_sync::init::synchronize_listeners;
    use lightning_block_sync::UnboundedCache;

    const BLOCKS: usize = 40;

    /// A chain of headers that counts how often it is asked for one.
    struct Chain {
        headers: Vec<BlockHeaderData>,
        asked: AtomicUsize,
    }

    impl Chain {
        fn new() -> Self {
            let genesis = genesis_block(Network::Regtest).header;
            let mut headers = vec![BlockHeaderData {
                header: genesis,
                height: 0,
                chainwork: genesis.work(),
            }];
            for height in 1..=BLOCKS {
                let before = headers[height - 1];
                let mut header = Header {
                    prev_blockhash: before.header.block_hash(),
                    time: before.header.time + 1,
                    ..genesis
                };
                while header.validate_pow(header.target()).is_err() {
                    header.nonce += 1;
                }
                headers.push(BlockHeaderData {
                    header,
                    height: height as u32,
                    chainwork: before.chainwork + header.work(),
                });
            }
            Self {
                headers,
                asked: AtomicUsize::new(0),
            }
        }

        fn of(&self, hash: &BlockHash) -> BlockHeaderData {
            let mut all = self.headers.iter();
            *all.find(|h| h.header.block_hash() == *hash).unwrap()
        }

        fn hash(&self, height: usize) -> BlockHash {
            self.headers[height].header.block_hash()
        }
    }

    impl BlockSource for Chain {
        fn get_header<'a>(
            &'a self,
            hash: &'a BlockHash,
            _: Option<u32>,
        ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { Ok(self.of(hash)) })
        }
        fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
            Box::pin(async move { Ok(BlockData::HeaderOnly(self.of(hash).header)) })
        }
        fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
            Box::pin(async move { Ok((self.hash(BLOCKS), Some(BLOCKS as u32))) })
        }
    }

    /// The heights that it was told of.
    #[derive(Default)]
    struct Told(Mutex<Vec<u32>>);

    impl Listen for Told {
        fn filtered_block_connected(
            &self,
            _: &Header,
            _: &lightning::chain::transaction::TransactionData<'_>,
            height: u32,
        ) {
            lock(&self.0).push(height);
        }
        fn block_connected(&self, _: &Block, height: u32) {
            lock(&self.0).push(height);
        }
        fn blocks_disconnected(&self, fork_point: BestBlock) {
            panic!("nothing to disconnect: {fork_point:?}");
        }
    }

    #[tokio::test]
    async fn each_header_is_asked_for_once_however_many_listen() {
        let chain = Chain::new();
        let all: Vec<Told> = (0..BLOCKS).map(|_| Told::default()).collect();
        let listeners = all.iter().enumerate();
        let listeners = listeners.map(|(height, told)| (chain.hash(height), told));
        let source = Headers::of(&chain);
        let mut cache = UnboundedCache::new();
        synchronize_listeners(
            &source,
            Network::Regtest,
            &mut cache,
            listeners.collect::<Vec<_>>(),
        )
        .await
        .unwrap();
        for (height, told) in all.iter().enumerate() {
            let wanted: Vec<u32> = (height as u32 + 1..=BLOCKS as u32).collect();
            assert_eq!(*lock(&told.0), wanted);
        }
        assert_eq!(chain.asked.load(Ordering::Relaxed), BLOCKS + 1);
    }
}
