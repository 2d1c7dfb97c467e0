//! What a wallet makes of the funding transactions that a payment depends on: claim it, wait, or fail it back in time.

use crate::reason::Reason;

/// Blocks before LDK's own deadline at which a wallet gives up: a claim must still reach the LSP.
const DEADLINE_MARGIN: u32 = 2;

/// What the chain source says of one channel's funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is not there, or cannot be asked for now.
    NotYet,
    /// LDK itself does not know what to look for.
    Unknown,
    /// The channel is closed: it pays nobody for a preimage.
    Closed,
    /// It is in the mempool or in a block.
    Output {
        /// It pays the channel's script.
        script_fits: bool,
        /// It has the channel's value.
        value_fits: bool,
        /// Confirmations; 0 in the mempool.
        confirmations: u32,
    },
}

/// How long a wallet may wait, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Confirmations that are asked for; 0 = seen in the mempool (J-04).
    pub confirmations: u32,
    /// For how long it was looked for, ms.
    pub elapsed_ms: u64,
    /// How long it is looked for where no confirmations are asked for, ms.
    pub timeout_ms: u64,
    /// Height of the best block.
    pub height: u32,
    /// The height at which LDK fails the payment.
    pub deadline: Option<u32>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is there: the preimage may go.
    Claim,
    /// Look again.
    Wait,
    /// Fail the payment back.
    Refuse(Reason),
}

/// Judges the funding outputs of every channel that the payment came over.
#[must_use]
pub fn judge(outputs: &[Seen], wait: &Wait) -> Verdict {
    let mut missing = outputs.is_empty();
    for seen in outputs {
        match *seen {
            Seen::Closed => return Verdict::Refuse(Reason::ChannelClosed),
            Seen::Unknown => return Verdict::Refuse(Reason::FundingUnverified),
            Seen::Output {
                script_fits: false, ..
            } => return Verdict::Refuse(Reason::FundingWrongScript),
            Seen::Output {
                value_fits: false, ..
            } => return Verdict::Refuse(Reason::FundingWrongValue),
            Seen::Output { confirmations, .. } => missing |= confirmations < wait.confirmations,
            Seen::NotYet => missing = true,
        }
    }
    let height = wait.height.saturating_add(DEADLINE_MARGIN);
    let too_late = wait.deadline.is_some_and(|deadline| height >= deadline);
    let too_long = wait.confirmations == 0 && wait.elapsed_ms >= wait.timeout_ms;
    match (missing, too_late || too_long) {
        (false, _) => Verdict::Claim,
        (true, true) => Verdict::Refuse(Reason::FundingUnverified),
        (true, false) => Verdict::Wait,
    }
}
