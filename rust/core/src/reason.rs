//! Why something was refused or failed: one list for logs, ledger, wallets and the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

/// BOLT 4 failure that the payer of an intercepted HTLC is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailCode {
    /// `unknown_next_peer` ("unp"): do not try again.
    UnknownNextPeer,
    /// `temporary_channel_failure` ("tcf"): trying later may work.
    TemporaryChannelFailure,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $code:expr, $message:literal;)*) => {
        /// Why a request was refused, a part failed or an order ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The LSPS or JSON-RPC error code that a client is answered with; `None` if it never answers a request (T-15).
            #[must_use]
            pub fn wire_code(self) -> Option<i32> {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What a wallet may show: one line of plain ASCII that names no secret.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message,)*
                }
            }
        }
    };
}

reasons! {
    // Refusals of a request.
    /// The message is no JSON-RPC request (T-04).
    BadFormat, Some(-32700), "not a valid request";
    /// The JSON-RPC version is missing or not 2.0 (T-16).
    BadVersion, Some(-32600), "jsonrpc must be 2.0";
    /// The method does not exist or is switched off (T-08).
    UnknownMethod, Some(-32601), "method not found";
    /// A parameter is unknown, missing or malformed (T-08).
    BadParams, Some(-32602), "invalid params";
    /// Something of ours failed (S-13).
    Internal, Some(-32603), "internal error";
    /// The token is unknown or withdrawn (J-07).
    UnknownToken, Some(200), "token unrecognized or stale";
    /// The promise is not ours for these parameters and this client (J-24).
    BadPromise, Some(201), "invalid opening_fee_params";
    /// `valid_until` has passed (J-25).
    OfferExpired, Some(201), "opening_fee_params have expired";
    /// The size is below `min_payment_size_msat` (J-29, B-2).
    BelowMinimum, Some(202), "payment too small for this offer";
    /// The size is above `max_payment_size_msat` (J-29, B-2).
    AboveMaximum, Some(203), "payment too large for this offer";
    /// Computing the fee overflows 64 bits (J-30).
    FeeOverflow, Some(203), "payment too large to compute its fee";
    /// The fee is not below the size (J-31).
    FeeExceedsPayment, Some(202), "payment does not exceed its opening fee";
    /// The client is on the deny list, or not on the allow list (J-34).
    ClientDenied, Some(1), "client not served";
    /// This client has too many requests under way.
    TooManyRequests, Some(1), "too many requests at once";
    /// This client has too many open orders (J-34).
    TooManyOrdersOfClient, Some(1), "too many open orders for this client";
    /// There are too many open orders in all (J-34).
    TooManyOrders, Some(1), "too many open orders, try later";
    /// This client's exposure limit is reached (J-34).
    ExposureOfClient, Some(1), "limit for this client reached";
    /// The exposure limit of the service is reached (J-34).
    Exposure, Some(1), "limit of the service reached, try later";
    /// As many channels were sold in this time as may be (J-34).
    QuotaUsed, Some(1), "quota used up, try later";
    /// This client left too many channels unpaid (S-55).
    ClientUnreliable, Some(1), "client has not paid for earlier channels";
    /// The operator's rule said no (J-34).
    PolicyRefused, Some(1), "refused by the operator";
    /// The operator's rule gave no usable answer in time (S-13).
    PolicyFailed, Some(1), "refused: no answer from the operator's rules";
    /// The service takes no new orders at present.
    Maintenance, Some(1), "no new orders at present";
    /// All coins are in channels or promised to others (J-34).
    CoinsPromised, Some(1), "no funds for another channel at present, try later";
    /// Clients without a token have all that they may have together (J-34).
    StrangersShare, Some(1), "limit for clients without a token reached, try later";
    /// The service could not receive such a payment (J-32).
    NoLiquidity, Some(203), "not enough inbound liquidity for this payment";
    /// `app_name` or `webhook` is too long (W-02).
    WebhookTooLong, Some(500), "app_name or webhook too long";
    /// `webhook` is no URL (W-03).
    BadUrl, Some(501), "webhook is not a valid URL";
    /// `webhook` is no https URL (W-04).
    NotHttps, Some(502), "webhook must be https";
    /// This client has as many webhooks as it may (W-06).
    TooManyWebhooks, Some(503), "too many webhooks";
    /// There is no webhook of this name (W-13, B-14).
    UnknownWebhook, Some(1010), "no webhook of this name";
    /// As many clients have webhooks as may.
    WebhookClients, Some(1), "no more webhooks at present, try later";
    /// This client changes its webhooks too often.
    WebhookChanges, Some(1), "webhooks changed too often, try later";

    // Failures of a part, a set or an order.
    /// The scid was never sold, or its order is over (S-25).
    UnknownScid, None, "no such order";
    /// The payment came at or after `valid_until` (J-52, B-3, B-4).
    Expired, None, "payment came too late";
    /// The onion asks for more than was delivered (S-27).
    OverDeclared, None, "payment declares more than it delivers";
    /// A part is below `htlc_minimum_msat` (J-69, B-7).
    PartTooSmall, None, "part below the minimum";
    /// A variable payment is below the minimum or does not carry its fee (J-33, J-56).
    PaymentTooSmall, None, "payment below the minimum";
    /// A variable payment is above the maximum (J-33).
    PaymentTooLarge, None, "payment above the maximum";
    /// So many parts that they cannot bear the fee (J-53, B-7).
    TooManyParts, None, "too many parts";
    /// The set was not complete in time (J-49).
    SetTimeout, None, "parts missing after the time allowed";
    /// The height at which the part had to be let go has come.
    ReleaseHeight, None, "held as long as its expiry allows";
    /// So many HTLCs are held already, for this client or in all.
    TooManyHeld, None, "too many payments are waiting";
    /// LDK let the part go by itself.
    PartGone, None, "no longer held";
    /// The channel that the part came over was closed while the part was held.
    PayerGone, None, "the payer's channel is closed";
    /// The client did not connect in time (J-83).
    ClientOffline, None, "client did not come online";
    /// The client refused the channel (J-61).
    ClientRefusedChannel, None, "client refused the channel";
    /// The client does not offer the features that the channel needs (J-58, S-48).
    ClientUnable, None, "client lacks scid aliases or anchors";
    /// The client disconnected before it had signed the funding (J-62).
    ClientDisconnected, None, "client disconnected during the open";
    /// No coins for the channel (S-37).
    NoCoins, None, "no funds for the channel";
    /// The channel did not become ready in time (S-42).
    OpenTimeout, None, "channel not ready in time";
    /// The open failed otherwise.
    OpenFailed, None, "channel could not be opened";
    /// All attempts allowed to an order are used up.
    TooManyOpens, None, "too many attempts to open the channel";
    /// The value needed is more than a channel may have.
    ChannelTooLarge, None, "channel would be too large";
    /// The sum of amounts overflows 64 bits (J-80).
    AmountOverflow, None, "amount too large";
    /// The channel has no room for the payment.
    NoRoom, None, "no room in the channel";
    /// Another payment to this order goes first (S-34).
    OtherPaymentFirst, None, "another payment is being served";
    /// The channel closed.
    ChannelClosed, None, "channel closed";
    /// The fee was still unpaid when its time was over.
    FeeUnpaid, None, "opening fee not paid in time";
    /// The funding transaction was double-spent or left the chain (S-72).
    FundingConflict, None, "funding transaction no longer valid";

    // What a client finds wrong with its LSP.
    /// The fee is above the client's own limit (S-33).
    FeeAboveLimit, None, "opening fee above the limit";
    /// No entry of the menu takes the payment (J-08, J-28).
    NoTier, None, "no offer for this amount";
    /// The LSP wants to be trusted and is not (J-03, B-17).
    TrustRefused, None, "LSP asks to be trusted";
    /// The LSP's answer violates the specification (J-16, J-18, J-85).
    BadResponse, None, "invalid answer from the LSP";
    /// The LSP took more than the fee agreed (J-74, J-75).
    SkimTooHigh, None, "LSP took more than the agreed fee";
    /// Less than the invoiced amount arrived, the fee counted in (J-73).
    Underpaid, None, "less than the invoiced amount arrived";
    /// The payment came over a channel that is not with the LSP of the order.
    WrongChannel, None, "payment came over another peer's channel";
    /// The funding transaction could not be verified in time (J-04).
    FundingUnverified, None, "funding transaction not verified";
    /// The funding output does not pay the channel's script (J-04).
    FundingWrongScript, None, "funding output pays another script";
    /// The funding output has another value than the channel (J-04).
    FundingWrongValue, None, "funding output has another value";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}
