//! Makes blocks: what waits and pays, a coinbase that pays for it, and the proof of work that regtest asks for.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    transaction, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness,
};

use crate::chain::Chain;

/// What a block may weigh besides its coinbase.
pub const MAX_WEIGHT: u64 = 3_992_000;
const COMMITMENT: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];
const RESERVED: [u8; 32] = [0; 32];

/// A block on the tip that pays to `script`, with these transactions and their fees. No other block has its `number`: two
/// of one height and second would be the same.
#[must_use]
pub fn block(
    chain: &Chain,
    script: ScriptBuf,
    txs: &[(Transaction, u64)],
    now: u32,
    number: u32,
) -> Block {
    let height = chain.height().saturating_add(1);
    let fees = txs.iter().map(|(_, fee)| *fee).fold(0, u64::saturating_add);
    let reward = Amount::from_sat(Chain::subsidy(height).saturating_add(fees));
    let mut txdata = vec![coinbase(height, number, script, reward)];
    txdata.extend(txs.iter().map(|(tx, _)| tx.clone()));
    let earliest = chain.median_time(chain.height()).saturating_add(1);
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: chain.tip(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: now.max(earliest),
            bits: genesis_block(Network::Regtest).header.bits,
            nonce: 0,
        },
        txdata,
    };
    commit_to_witnesses(&mut block);
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    // Every second one will do.
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

fn coinbase(height: u32, number: u32, script_pubkey: ScriptBuf, value: Amount) -> Transaction {
    let script_sig = Builder::new()
        .push_int(i64::from(height))
        .push_int(i64::from(number))
        .into_script();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[RESERVED]),
        }],
        output: vec![TxOut {
            value,
            script_pubkey,
        }],
    }
}

fn commit_to_witnesses(block: &mut Block) {
    let Some(root) = block.witness_root() else {
        return;
    };
    let commitment = Block::compute_witness_commitment(&root, &RESERVED);
    let mut data = PushBytesBuf::from(COMMITMENT);
    // 36 bytes are never too many to push.
    if data.extend_from_slice(commitment.as_byte_array()).is_err() {
        return;
    }
    let script_pubkey = Builder::new()
        .push_opcode(OP_RETURN)
        .push_slice(data)
        .into_script();
    if let Some(coinbase) = block.txdata.first_mut() {
        coinbase.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey,
        });
    }
}
